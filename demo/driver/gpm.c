// The GPU performance monitor: two samples, and what was busy between them.
#include "driver.h"

#include <stdlib.h>

static const struct {
    unsigned int id;
    enum signal signal;
    double scale;
} metrics[] = {
    {NVML_GPM_METRIC_GRAPHICS_UTIL, S_gpm_graphics, 1},
    {NVML_GPM_METRIC_SM_UTIL, S_gpm_sm, 1},
    {NVML_GPM_METRIC_SM_OCCUPANCY, S_gpm_occupancy, 1},
    {NVML_GPM_METRIC_INTEGER_UTIL, S_gpm_integer, 1},
    {NVML_GPM_METRIC_ANY_TENSOR_UTIL, S_gpm_tensor, 1},
    {NVML_GPM_METRIC_DRAM_BW_UTIL, S_gpm_dram, 1},
    {NVML_GPM_METRIC_FP64_UTIL, S_gpm_fp64, 1},
    {NVML_GPM_METRIC_FP32_UTIL, S_gpm_fp32, 1},
    {NVML_GPM_METRIC_FP16_UTIL, S_gpm_fp16, 1},
    // Traffic is in MiB a second.
    {NVML_GPM_METRIC_PCIE_TX_PER_SEC, S_pcie_tx_rate, 1.0 / 1048576},
    {NVML_GPM_METRIC_PCIE_RX_PER_SEC, S_pcie_rx_rate, 1.0 / 1048576},
    {NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC, S_nvlink_rx_rate, 1.0 / 1048576},
    {NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC, S_nvlink_tx_rate, 1.0 / 1048576},
};
enum { METRICS = sizeof metrics / sizeof *metrics };

struct nvmlGpmSample_st {
    double time; // 0: not taken yet
    int gpu, mig;
    int known[METRICS];
    double totals[METRICS];
};

nvmlReturn_t nvmlGpmQueryDeviceSupport(nvmlDevice_t device, nvmlGpmSupport_t *support)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(support);
    VERSION(support, NVML_GPM_SUPPORT_VERSION);
    support->isSupportedDevice = constant(call.gpu, S_gpm) > 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpmSampleAlloc(nvmlGpmSample_t *sample)
{
    SYSTEM_CALL();
    REQUIRE(sample);
    *sample = calloc(1, sizeof **sample);
    return *sample ? NVML_SUCCESS : NVML_ERROR_MEMORY;
}

nvmlReturn_t nvmlGpmSampleFree(nvmlGpmSample_t sample)
{
    REQUIRE(sample);
    free(sample);
    return NVML_SUCCESS;
}

static nvmlReturn_t take(const struct call *call, nvmlGpmSample_t sample)
{
    REQUIRE(sample);
    if (!constant(call->gpu, S_gpm))
        return NVML_ERROR_NOT_SUPPORTED;
    *sample = (struct nvmlGpmSample_st){.time = call->now, .gpu = call->gpu_index, .mig = call->target->mig};
    for (int n = 0; n < METRICS; n++) {
        sample->known[n] = has(call, metrics[n].signal);
        sample->totals[n] = total(call, metrics[n].signal);
    }
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpmSampleGet(nvmlDevice_t device, nvmlGpmSample_t sample)
{
    CALL(device, WHOLE_GPU);
    return take(&call, sample);
}

nvmlReturn_t nvmlGpmMigSampleGet(nvmlDevice_t device, unsigned int gpu_instance, nvmlGpmSample_t sample)
{
    CALL(device, WHOLE_GPU);
    EACH(call.scenario, mig, MIG)
        if (mig->gpu == call.gpu_index && constant(mig, S_gpu_instance) == gpu_instance) {
            call.target = mig;
            return take(&call, sample);
        }
    return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlGpmMetricsGet(nvmlGpmMetricsGet_t *request)
{
    SYSTEM_CALL();
    REQUIRE(request);
    VERSION(request, NVML_GPM_METRICS_GET_VERSION);
    const struct nvmlGpmSample_st *from = request->sample1, *to = request->sample2;
    REQUIRE(from && to && from->time > 0 && to->time > from->time && request->numMetrics <= NVML_GPM_METRIC_MAX);
    REQUIRE(from->gpu == to->gpu && from->mig == to->mig);
    for (unsigned int n = 0; n < request->numMetrics; n++) {
        nvmlGpmMetric_t *metric = &request->metrics[n];
        metric->nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
        for (int m = 0; m < METRICS; m++)
            if (metrics[m].id == metric->metricId && from->known[m] && to->known[m]) {
                metric->nvmlReturn = NVML_SUCCESS;
                metric->value = (to->totals[m] - from->totals[m]) / (to->time - from->time) * metrics[m].scale;
            }
    }
    return NVML_SUCCESS;
}
