// Events: every set hears once about each event that was appended to the scenario after it was made.
// The types of system events lie above those of GPUs in a scenario (SYSTEM_EVENT in gpu.py).
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>

#define SYSTEM_SHIFT 32
#define SYSTEM_TYPES (nvmlSystemEventTypeGpuDriverUnbind | nvmlSystemEventTypeGpuDriverBind)

#define SUPPORTED_TYPES                                                                                                \
    (nvmlEventTypeSingleBitEccError | nvmlEventTypeDoubleBitEccError | nvmlEventTypeXidCriticalError |                 \
     nvmlEventMigConfigChange | nvmlEventTypeGpuUnavailableError | nvmlEventTypeGpuRecoveryAction)

struct nvmlEventSet_st {
    double heard; // id of the last event it knows of
    unsigned long long types[MAX_GPUS];
};

struct nvmlSystemEventSet_st {
    double heard;
    unsigned long long types;
};

static double last_event(const struct scenario *scenario)
{
    double last = 0;
    EACH(scenario, event, EVENT)
        last = constant(event, S_id);
    return last;
}

nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(types);
    *types = SUPPORTED_TYPES;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
    SYSTEM_CALL();
    REQUIRE(set);
    *set = calloc(1, sizeof **set);
    if (!*set)
        return NVML_ERROR_MEMORY;
    (*set)->heard = last_event(call.scenario);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(set);
    if (types & ~(unsigned long long)SUPPORTED_TYPES)
        return NVML_ERROR_NOT_SUPPORTED;
    set->types[call.gpu_index] |= types;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    REQUIRE(set);
    free(set);
    return NVML_SUCCESS;
}

static nvmlReturn_t next_event(const char *function, nvmlEventSet_t set, nvmlEventData_t *data)
{
    CALL_AS(enter_gpu(&call, function, NO_GPU, WHOLE));
    REQUIRE(set && data);
    // A list that became shorter starts over: what is appended from here on is news.
    double last = last_event(call.scenario);
    if (set->heard > last)
        set->heard = last;
    EACH(call.scenario, event, EVENT)
    {
        unsigned int gpu = (unsigned int)constant(event, S_gpu);
        unsigned long long type = (unsigned long long)constant(event, S_type);
        if (constant(event, S_id) <= set->heard)
            continue;
        set->heard = constant(event, S_id);
        if (!(set->types[gpu] & type))
            continue;
        *data = (nvmlEventData_t){
            .device = device_handle((int)gpu, WHOLE),
            .eventType = type,
            .eventData = (unsigned long long)constant(event, S_data),
            .gpuInstanceId = (unsigned int)constant(event, S_gpu_instance),
            .computeInstanceId = (unsigned int)constant(event, S_compute_instance),
        };
        return NVML_SUCCESS;
    }
    for (int gpu = 0; gpu < MAX_GPUS; gpu++)
        if (set->types[gpu] && (gpu >= call.scenario->gpu_count || constant(call.scenario->gpus[gpu], S_lost)))
            return NVML_ERROR_GPU_IS_LOST;
    return NVML_ERROR_TIMEOUT;
}

static nvmlReturn_t wait(const char *function, nvmlEventSet_t set, nvmlEventData_t *data, unsigned int milliseconds)
{
    double deadline = clock_now() + milliseconds / 1e3;
    nvmlReturn_t result;
    while ((result = next_event(function, set, data)) == NVML_ERROR_TIMEOUT && clock_now() < deadline)
        clock_sleep(0.05);
    return result;
}

nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int milliseconds)
{
    return wait(__func__, set, data, milliseconds);
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int milliseconds)
{
    return wait(__func__, set, data, milliseconds);
}

nvmlReturn_t nvmlSystemEventSetCreate(nvmlSystemEventSetCreateRequest_t *request)
{
    SYSTEM_CALL();
    REQUIRE(request);
    VERSION(request, nvmlSystemEventSetCreateRequest_v1);
    request->set = calloc(1, sizeof *request->set);
    if (!request->set)
        return NVML_ERROR_MEMORY;
    request->set->heard = last_event(call.scenario);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemEventSetFree(nvmlSystemEventSetFreeRequest_t *request)
{
    REQUIRE(request && request->set);
    VERSION(request, nvmlSystemEventSetFreeRequest_v1);
    free(request->set);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemRegisterEvents(nvmlSystemRegisterEventRequest_t *request)
{
    SYSTEM_CALL();
    REQUIRE(request && request->set);
    VERSION(request, nvmlSystemRegisterEventRequest_v1);
    if (request->eventTypes & ~(unsigned long long)SYSTEM_TYPES)
        return NVML_ERROR_NOT_SUPPORTED;
    request->set->types |= request->eventTypes;
    return NVML_SUCCESS;
}

// Domain, bus and device in one number.
static unsigned int pci_id(const struct entity *gpu)
{
    unsigned int domain = 0, bus = 0, device = 0;
    sscanf(gpu->texts[T_pci_bus_id], "%x:%x:%x", &domain, &bus, &device);
    return domain << 16 | bus << 8 | device;
}

static nvmlReturn_t system_events(const char *function, nvmlSystemEventSetWaitRequest_t *request)
{
    CALL_AS(enter_gpu(&call, function, NO_GPU, WHOLE));
    double last = last_event(call.scenario);
    if (request->set->heard > last)
        request->set->heard = last;
    request->numEvent = 0;
    EACH(call.scenario, event, EVENT)
    {
        unsigned long long type = (unsigned long long)constant(event, S_type) >> SYSTEM_SHIFT;
        if (constant(event, S_id) <= request->set->heard || request->numEvent == request->dataSize)
            continue;
        request->set->heard = constant(event, S_id);
        if (request->set->types & type)
            request->data[request->numEvent++] = (nvmlSystemEventData_v1_t){
                .eventType = type,
                .gpuId = pci_id(call.scenario->gpus[(int)constant(event, S_gpu)]),
            };
    }
    return request->numEvent ? NVML_SUCCESS : NVML_ERROR_TIMEOUT;
}

nvmlReturn_t nvmlSystemEventSetWait(nvmlSystemEventSetWaitRequest_t *request)
{
    REQUIRE(request && request->set && request->data && request->dataSize);
    VERSION(request, nvmlSystemEventSetWaitRequest_v1);
    double deadline = clock_now() + request->timeoutms / 1e3;
    nvmlReturn_t result;
    while ((result = system_events(__func__, request)) == NVML_ERROR_TIMEOUT && clock_now() < deadline)
        clock_sleep(0.05);
    return result;
}
