// Events: every set hears once about each event that was appended to the scenario after it was made.
#include "driver.h"

#include <stdlib.h>

#define SUPPORTED_TYPES                                                                                                \
    (nvmlEventTypeSingleBitEccError | nvmlEventTypeDoubleBitEccError | nvmlEventTypeXidCriticalError |                 \
     nvmlEventMigConfigChange | nvmlEventTypeGpuUnavailableError | nvmlEventTypeGpuRecoveryAction)

struct nvmlEventSet_st {
    double heard; // id of the last event it knows of
    unsigned long long types[MAX_GPUS];
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
