// The library itself: starting and stopping, handles, and the checks every call goes through.
#include "driver.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// How a program tells this library from NVIDIA's, and the build which inputs this one was made from.
const int palegreen_simulated_driver = 1;
const char palegreen_simulated_driver_digest[] = DIGEST;

static atomic_int users;

// Open while there are users, as the real library has /dev/nvidiactl open: here it is the scenario file.
static int held = -1;
static pthread_mutex_t holding = PTHREAD_MUTEX_INITIALIZER;

static void count_users(int change)
{
    pthread_mutex_lock(&holding);
    users += change;
    if (users > 0 && held < 0)
        held = open(scenario_path(), O_RDONLY | O_CLOEXEC);
    if (users == 0 && held >= 0) {
        close(held);
        held = -1;
    }
    pthread_mutex_unlock(&holding);
}

// Handles are addresses in here and outlive scenarios: 0 is the whole GPU, then its MIG devices.
static char handles[MAX_GPUS][1 + MAX_MIG_DEVICES];

nvmlDevice_t device_handle(int gpu, int mig)
{
    return (nvmlDevice_t)&handles[gpu][mig + 1];
}

static int locate(nvmlDevice_t device, int *gpu, int *mig)
{
    const char *address = (const char *)device, *first = &handles[0][0];
    if (address < first || address >= first + sizeof handles)
        return 0;
    *gpu = (int)((address - first) / (1 + MAX_MIG_DEVICES));
    *mig = (int)((address - first) % (1 + MAX_MIG_DEVICES)) - 1;
    return 1;
}

// Waits out a hang without holding anything, so that calls on other GPUs go on.
static nvmlReturn_t obey(struct call *call, const char *function, int gpu)
{
    for (;;) {
        call->scenario = scenario_acquire(&call->now);
        if (!call->scenario)
            return NVML_ERROR_DRIVER_NOT_LOADED;
        int code = scenario_rule(call->scenario, gpu, function);
        if (code != HANG)
            return (nvmlReturn_t)code;
        scenario_release(call->scenario);
        call->scenario = NULL;
        clock_sleep(0.01);
    }
}

nvmlReturn_t enter_gpu(struct call *call, const char *function, int gpu, int mig)
{
    if (users == 0)
        return NVML_ERROR_UNINITIALIZED;
    nvmlReturn_t result = obey(call, function, gpu);
    if (result != NVML_SUCCESS)
        return result;
    const struct scenario *scenario = call->scenario;
    call->gpu_index = gpu;
    call->mig_index = mig;
    if (gpu == NO_GPU) {
        call->target = scenario->system;
        return NVML_SUCCESS;
    }
    if (gpu >= scenario->gpu_count)
        return NVML_ERROR_GPU_IS_LOST;
    if (mig != WHOLE && mig >= scenario->mig_count[gpu])
        return NVML_ERROR_NOT_FOUND;
    call->gpu = scenario->gpus[gpu];
    call->target = mig == WHOLE ? call->gpu : scenario->migs[gpu][mig];
    return NVML_SUCCESS;
}

nvmlReturn_t enter(struct call *call, const char *function, nvmlDevice_t device, enum scope scope)
{
    int gpu, mig;
    if (users == 0)
        return NVML_ERROR_UNINITIALIZED;
    REQUIRE(locate(device, &gpu, &mig));
    nvmlReturn_t result = enter_gpu(call, function, gpu, mig);
    return result == NVML_SUCCESS && mig != WHOLE && scope == WHOLE_GPU ? NVML_ERROR_NOT_SUPPORTED : result;
}

void leave(struct call *call)
{
    scenario_release(call->scenario);
}

nvmlReturn_t copy_text(const char *text, char *buffer, unsigned int length)
{
    REQUIRE(buffer);
    if (strlen(text) >= length)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(buffer, text);
    return NVML_SUCCESS;
}

static nvmlReturn_t initialise(const char *function)
{
    __attribute__((cleanup(leave))) struct call call = {0};
    nvmlReturn_t result = obey(&call, function, NO_GPU);
    if (result == NVML_SUCCESS)
        result = (nvmlReturn_t)constant(call.scenario->system, S_init);
    if (result == NVML_SUCCESS)
        count_users(1);
    return result;
}

nvmlReturn_t nvmlInit(void)
{
    return initialise(__func__);
}

nvmlReturn_t nvmlInit_v2(void)
{
    return initialise(__func__);
}

nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    return initialise(__func__);
}

nvmlReturn_t nvmlShutdown(void)
{
    if (users == 0)
        return NVML_ERROR_UNINITIALIZED;
    count_users(-1);
    return NVML_SUCCESS;
}

const char *nvmlErrorString(nvmlReturn_t result)
{
    switch (result) {
    case NVML_SUCCESS: return "success";
    case NVML_ERROR_UNINITIALIZED: return "not initialised";
    case NVML_ERROR_INVALID_ARGUMENT: return "invalid argument";
    case NVML_ERROR_NOT_SUPPORTED: return "not supported";
    case NVML_ERROR_NO_PERMISSION: return "no permission";
    case NVML_ERROR_NOT_FOUND: return "not found";
    case NVML_ERROR_INSUFFICIENT_SIZE: return "buffer too small";
    case NVML_ERROR_DRIVER_NOT_LOADED: return "driver not loaded";
    case NVML_ERROR_TIMEOUT: return "timeout";
    case NVML_ERROR_FUNCTION_NOT_FOUND: return "function not found";
    case NVML_ERROR_GPU_IS_LOST: return "GPU is lost";
    case NVML_ERROR_RESET_REQUIRED: return "GPU needs a reset";
    case NVML_ERROR_LIB_RM_VERSION_MISMATCH: return "driver and library versions differ";
    case NVML_ERROR_ARGUMENT_VERSION_MISMATCH: return "version of the structure not known";
    default: return "unknown error";
    }
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    SYSTEM_CALL();
    return copy_text(call.target->texts[T_driver_version], version, length);
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
    SYSTEM_CALL();
    return copy_text(call.target->texts[T_nvml_version], version, length);
}

// The unversioned call answers without a driver too, from the library's own version: here they are the same.
static nvmlReturn_t cuda_version(const char *function, int *version)
{
    CALL_AS(enter_gpu(&call, function, NO_GPU, WHOLE));
    REQUIRE(version);
    *version = (int)constant(call.target, S_cuda_version);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
    return cuda_version(__func__, version);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    return cuda_version(__func__, version);
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    SYSTEM_CALL();
    REQUIRE(count);
    *count = (unsigned int)call.scenario->gpu_count;
    return NVML_SUCCESS;
}

static nvmlReturn_t enter_index(struct call *call, const char *function, unsigned int index)
{
    REQUIRE(index < MAX_GPUS);
    nvmlReturn_t result = enter_gpu(call, function, (int)index, WHOLE);
    if (call->scenario)
        REQUIRE((int)index < call->scenario->gpu_count);
    return result;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    CALL_AS(enter_index(&call, __func__, index));
    REQUIRE(device);
    *device = device_handle((int)index, WHOLE);
    return NVML_SUCCESS;
}

// Looks for a device by a text of its own, then takes the call through that GPU's rules.
static nvmlReturn_t handle_by(const char *function, enum text text, const char *wanted, nvmlDevice_t *device)
{
    int gpu = NO_GPU, mig = WHOLE;
    {
        CALL_AS(enter_gpu(&call, function, NO_GPU, WHOLE));
        REQUIRE(wanted && device);
        for (const struct entity *entity = call.scenario->entities; entity; entity = entity->next)
            if ((entity->kind == GPU || entity->kind == MIG) && !strcmp(entity->texts[text], wanted)) {
                gpu = entity->gpu;
                mig = entity->mig;
            }
    }
    if (gpu == NO_GPU)
        return NVML_ERROR_NOT_FOUND;
    CALL_AS(enter_gpu(&call, function, gpu, mig));
    *device = device_handle(gpu, mig);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    return handle_by(__func__, T_uuid, uuid, device);
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device)
{
    // The driver also takes the four-digit domain of the legacy form.
    char full[NVML_DEVICE_PCI_BUS_ID_BUFFER_SIZE];
    snprintf(full, sizeof full, "%s%s", bus_id && strlen(bus_id) == 12 ? "0000" : "", bus_id ? bus_id : "");
    return handle_by(__func__, T_pci_bus_id, full, device);
}
