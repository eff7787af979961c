// What tells a healthy GPU from another: temperatures in structures, memory errors, remapped rows.
#include "driver.h"

#include <string.h>

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(temperature);
    VERSION(temperature, nvmlTemperature_v1);
    REQUIRE(temperature->sensorType == NVML_TEMPERATURE_GPU);
    SUPPORTED(S_temperature);
    temperature->temperature = (int)(value(&call, S_temperature) + 0.5);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device, nvmlMarginTemperature_t *margin)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(margin);
    VERSION(margin, nvmlMarginTemperature_v1);
    SUPPORTED(S_temperature);
    SUPPORTED(S_temperature_gpu_max);
    margin->marginTemperature = (int)(value(&call, S_temperature_gpu_max) - value(&call, S_temperature));
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, nvmlEnableState_t *now, nvmlEnableState_t *pending)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(now && pending);
    SUPPORTED(S_ecc_mode);
    *now = *pending = (nvmlEnableState_t)value(&call, S_ecc_mode);
    return NVML_SUCCESS;
}

static const enum signal ecc[2][2][2] = {
    {{S_ecc_dram_corrected_volatile, S_ecc_dram_corrected_aggregate},
     {S_ecc_dram_uncorrected_volatile, S_ecc_dram_uncorrected_aggregate}},
    {{S_ecc_sram_corrected_volatile, S_ecc_sram_corrected_aggregate},
     {S_ecc_sram_uncorrected_volatile, S_ecc_sram_uncorrected_aggregate}},
};

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t error,
                                         nvmlEccCounterType_t counter, unsigned long long *count)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(count && (unsigned int)error < 2 && (unsigned int)counter < 2);
    SUPPORTED(S_ecc_mode);
    *count = (unsigned long long)(value(&call, ecc[0][error][counter]) + value(&call, ecc[1][error][counter]));
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, nvmlMemoryErrorType_t error,
                                             nvmlEccCounterType_t counter, nvmlMemoryLocation_t location,
                                             unsigned long long *count)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(count && (unsigned int)error < 2 && (unsigned int)counter < 2);
    SUPPORTED(S_ecc_mode);
    if (location != NVML_MEMORY_LOCATION_DRAM && location != NVML_MEMORY_LOCATION_SRAM)
        return NVML_ERROR_NOT_SUPPORTED;
    *count = (unsigned long long)value(&call, ecc[location == NVML_MEMORY_LOCATION_SRAM][error][counter]);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetSramEccErrorStatus(nvmlDevice_t device, nvmlEccSramErrorStatus_t *status)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(status);
    VERSION(status, nvmlEccSramErrorStatus_v1);
    SUPPORTED(S_ecc_mode);
    unsigned int version = status->version;
    memset(status, 0, sizeof *status);
    status->version = version;
    status->volatileCor = (unsigned long long)value(&call, S_ecc_sram_corrected_volatile);
    status->aggregateCor = (unsigned long long)value(&call, S_ecc_sram_corrected_aggregate);
    status->volatileUncSecDed = (unsigned long long)value(&call, S_ecc_sram_uncorrected_volatile);
    status->aggregateUncSecDed = (unsigned long long)value(&call, S_ecc_sram_uncorrected_aggregate);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *corrected, unsigned int *uncorrected,
                                       unsigned int *pending, unsigned int *failed)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(corrected && uncorrected && pending && failed);
    SUPPORTED(S_remapped_rows_correctable);
    *corrected = (unsigned int)value(&call, S_remapped_rows_correctable);
    *uncorrected = (unsigned int)value(&call, S_remapped_rows_uncorrectable);
    *pending = value(&call, S_remapped_rows_pending) > 0;
    *failed = value(&call, S_remapped_rows_failure) > 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRemappedRows_v2(nvmlDevice_t device, nvmlRemappedRowsInfo_v2_t *info)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(info);
    SUPPORTED(S_remapped_rows_correctable);
    memset(info, 0, sizeof *info);
    info->corrActiveRemaps = (unsigned int)value(&call, S_remapped_rows_correctable);
    info->uncActiveRemaps = (unsigned int)value(&call, S_remapped_rows_uncorrectable);
    info->bPending = value(&call, S_remapped_rows_pending) > 0;
    info->bFailureOccurred = value(&call, S_remapped_rows_failure) > 0;
    return NVML_SUCCESS;
}
