// The driver's own sampling: power, utilisation and clocks in ring buffers, and the processes on a GPU.
#include "driver.h"

#include <math.h>
#include <pthread.h>

enum { RING = 256 };

static const struct {
    enum signal signal;
    double scale;
    int absent_on_mig;
} sampled[NVML_SAMPLINGTYPE_COUNT] = {
    [NVML_TOTAL_POWER_SAMPLES] = {S_power, 1000, 0},
    [NVML_GPU_UTILIZATION_SAMPLES] = {S_gpu_utilization, 1, 1},
    [NVML_MEMORY_UTILIZATION_SAMPLES] = {S_memory_utilization, 1, 1},
    [NVML_ENC_UTILIZATION_SAMPLES] = {S_encoder_utilization, 1, 1},
    [NVML_DEC_UTILIZATION_SAMPLES] = {S_decoder_utilization, 1, 1},
    [NVML_PROCESSOR_CLK_SAMPLES] = {S_sm_clock, 1, 0},
    [NVML_MEMORY_CLK_SAMPLES] = {S_memory_clock, 1, 0},
    [NVML_MODULE_POWER_SAMPLES] = {S_module_power, 1000, 0},
    [NVML_JPG_UTILIZATION_SAMPLES] = {S_jpeg_utilization, 1, 1},
    [NVML_OFA_UTILIZATION_SAMPLES] = {S_ofa_utilization, 1, 1},
};

// Filled when somebody looks and when a scenario ends, with what a driver that never sleeps would have taken.
struct ring {
    unsigned long long taken; // samples ever
    nvmlSample_t samples[RING];
};
static struct ring rings[MAX_GPUS][NVML_SAMPLINGTYPE_COUNT];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static double sample_period(const struct entity *gpu, int type)
{
    int power = type == NVML_TOTAL_POWER_SAMPLES || type == NVML_MODULE_POWER_SAMPLES;
    return constant(gpu, power ? S_power_sample_period : S_sample_period);
}

static void record(struct ring *ring, const struct scenario *scenario, const struct entity *gpu, int type, double until)
{
    const struct wave *wave = &gpu->signals[sampled[type].signal];
    double period = sample_period(gpu, type);
    unsigned long long last = ring->taken ? ring->samples[(ring->taken - 1) % RING].timeStamp : 0;
    double tick = fmax(0, floor((fmax((double)last / 1e6, until - RING * period) - scenario->start) / period));
    for (double time; (time = scenario->start + tick * period) <= until; tick++) {
        nvmlSample_t sample = {(unsigned long long)(time * 1e6 + 0.5), {0}};
        if (sample.timeStamp <= last)
            continue;
        sample.sampleValue.uiVal = (unsigned int)(wave_value(scenario, wave, time) * sampled[type].scale + 0.5);
        ring->samples[ring->taken++ % RING] = sample;
    }
}

void samples_record(const struct scenario *scenario, double until)
{
    pthread_mutex_lock(&lock);
    EACH(scenario, gpu, GPU)
        for (int type = 0; type < NVML_SAMPLINGTYPE_COUNT; type++)
            if (gpu->signals[sampled[type].signal].shape != ABSENT)
                record(&rings[gpu->gpu][type], scenario, gpu, type, until);
    pthread_mutex_unlock(&lock);
}

static nvmlReturn_t copy_newer(const struct ring *ring, unsigned int kept, unsigned long long last,
                               unsigned int *count, nvmlSample_t *samples)
{
    unsigned long long first = ring->taken > kept ? ring->taken - kept : 0;
    while (first < ring->taken && ring->samples[first % RING].timeStamp <= last)
        first++;
    unsigned int room = *count;
    *count = (unsigned int)(ring->taken - first);
    if (*count == 0)
        return NVML_ERROR_NOT_FOUND;
    if (*count > room)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned int n = 0; n < *count; n++)
        samples[n] = ring->samples[(first + n) % RING];
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetSamples(nvmlDevice_t device, nvmlSamplingType_t type, unsigned long long last,
                                  nvmlValueType_t *value_type, unsigned int *count, nvmlSample_t *samples)
{
    CALL(device, WHOLE_GPU);
    REQUIRE((unsigned int)type < NVML_SAMPLINGTYPE_COUNT && value_type && count);
    SUPPORTED(sampled[type].signal);
    if (sampled[type].absent_on_mig && constant(call.gpu, S_mig_mode))
        return NVML_ERROR_NOT_SUPPORTED;
    unsigned int kept = (unsigned int)constant(call.gpu, S_sample_buffer);
    *value_type = NVML_VALUE_TYPE_UNSIGNED_INT;
    if (!samples) {
        *count = kept;
        return NVML_SUCCESS;
    }
    struct ring *ring = &rings[call.gpu_index][type];
    pthread_mutex_lock(&lock);
    record(ring, call.scenario, call.gpu, type, call.now);
    nvmlReturn_t result = copy_newer(ring, kept, last, count, samples);
    pthread_mutex_unlock(&lock);
    return result;
}

static unsigned int percent(const struct scenario *scenario, const struct entity *process, enum signal signal,
                            double time)
{
    return (unsigned int)(wave_value(scenario, &process->signals[signal], time) + 0.5);
}

// Walks the samples newer than `last` of all processes that did something; `out` may be NULL, to count.
static unsigned int sample_processes(const struct call *call, unsigned long long last,
                                     nvmlProcessUtilizationSample_t *out)
{
    const struct scenario *scenario = call->scenario;
    double period = constant(call->gpu, S_sample_period);
    double oldest = fmax(scenario->since, call->now - period * constant(call->gpu, S_sample_buffer));
    unsigned int count = 0;
    for (double tick = floor((call->now - scenario->start) / period); tick >= 0; tick--) {
        double time = scenario->start + tick * period;
        unsigned long long stamp = (unsigned long long)(time * 1e6 + 0.5);
        if (time < oldest || stamp <= last)
            break;
        EACH(scenario, process, PROCESS)
        {
            if (process->gpu != call->gpu_index)
                continue;
            nvmlProcessUtilizationSample_t sample = {
                .pid = (unsigned int)constant(process, S_pid),
                .timeStamp = stamp,
                .smUtil = percent(scenario, process, S_gpu_utilization, time),
                .memUtil = percent(scenario, process, S_memory_utilization, time),
                .encUtil = percent(scenario, process, S_encoder_utilization, time),
                .decUtil = percent(scenario, process, S_decoder_utilization, time),
            };
            if (sample.smUtil + sample.memUtil + sample.encUtil + sample.decUtil == 0)
                continue;
            if (out)
                out[count] = sample;
            count++;
        }
    }
    return count;
}

nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *samples,
                                             unsigned int *count, unsigned long long last)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(count);
    if (constant(call.gpu, S_mig_mode))
        return NVML_ERROR_NOT_SUPPORTED;
    unsigned int room = samples ? *count : 0, needed = sample_processes(&call, last, NULL);
    *count = needed;
    if (needed == 0)
        return NVML_ERROR_NOT_FOUND;
    if (needed > room)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    sample_processes(&call, last, samples);
    return NVML_SUCCESS;
}

static int runs_here(const struct call *call, const struct entity *process)
{
    return process->gpu == call->gpu_index &&
           (call->mig_index == WHOLE ||
            (constant(process, S_gpu_instance) == constant(call->target, S_gpu_instance) &&
             constant(process, S_compute_instance) == constant(call->target, S_compute_instance)));
}

enum process_type { COMPUTE, GRAPHICS, MPS };

// Version 1 of the structure has the first two members only.
static nvmlReturn_t list_processes(const char *function, nvmlDevice_t device, enum process_type type,
                                   unsigned int *count, void *infos, int version)
{
    CALL_AS(enter(&call, function, device, ANY_DEVICE));
    REQUIRE(count);
    unsigned int room = infos ? *count : 0, found = 0;
    EACH(call.scenario, process, PROCESS)
    {
        if (constant(process, S_type) != type || !runs_here(&call, process))
            continue;
        nvmlProcessInfo_v2_t info = {
            .pid = (unsigned int)constant(process, S_pid),
            .usedGpuMemory = (unsigned long long)NVML_VALUE_NOT_AVAILABLE,
            .gpuInstanceId = (unsigned int)constant(process, S_gpu_instance),
            .computeInstanceId = (unsigned int)constant(process, S_compute_instance),
        };
        const struct wave *used = &process->signals[S_memory_used];
        if (used->shape != ABSENT)
            info.usedGpuMemory = (unsigned long long)wave_value(call.scenario, used, call.now);
        if (found < room && version == 1)
            ((nvmlProcessInfo_v1_t *)infos)[found] = (nvmlProcessInfo_v1_t){info.pid, info.usedGpuMemory};
        else if (found < room)
            ((nvmlProcessInfo_v2_t *)infos)[found] = info;
        found++;
    }
    *count = found;
    return found > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

// Versions 2 and 3 of the functions fill the same structure.
#define LIST(kind, type)                                                                                               \
    nvmlReturn_t nvmlDeviceGet##kind##RunningProcesses(nvmlDevice_t device, unsigned int *count,                       \
                                                       nvmlProcessInfo_v1_t *infos)                                    \
    {                                                                                                                  \
        return list_processes(__func__, device, type, count, infos, 1);                                                \
    }                                                                                                                  \
    nvmlReturn_t nvmlDeviceGet##kind##RunningProcesses_v2(nvmlDevice_t device, unsigned int *count,                    \
                                                          nvmlProcessInfo_v2_t *infos)                                 \
    {                                                                                                                  \
        return list_processes(__func__, device, type, count, infos, 2);                                                \
    }                                                                                                                  \
    nvmlReturn_t nvmlDeviceGet##kind##RunningProcesses_v3(nvmlDevice_t device, unsigned int *count,                    \
                                                          nvmlProcessInfo_t *infos)                                    \
    {                                                                                                                  \
        return list_processes(__func__, device, type, count, infos, 2);                                                \
    }

LIST(Compute, COMPUTE)
LIST(Graphics, GRAPHICS)
LIST(MPSCompute, MPS)
