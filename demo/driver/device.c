// What a GPU says about itself when asked once: identity, memory, utilisation, clocks, power.
#include "driver.h"

#include <stdio.h>
#include <string.h>

static nvmlReturn_t read_text(const char *function, nvmlDevice_t device, enum text text, char *buffer,
                              unsigned int length)
{
    CALL_AS(enter(&call, function, device, ANY_DEVICE));
    const char *found = call.target->texts[text];
    return *found ? copy_text(found, buffer, length) : NVML_ERROR_NOT_SUPPORTED;
}

static nvmlReturn_t read_scaled(const char *function, nvmlDevice_t device, enum signal signal, double scale,
                                unsigned int *out)
{
    CALL_AS(enter(&call, function, device, WHOLE_GPU));
    REQUIRE(out);
    SUPPORTED(signal);
    *out = (unsigned int)(value(&call, signal) * scale + 0.5);
    return NVML_SUCCESS;
}

// Most calls give one number in one unit.
#define READ(function, type, signal, scale)                                                                            \
    nvmlReturn_t function(nvmlDevice_t device, type *out)                                                              \
    {                                                                                                                  \
        unsigned int number = 0;                                                                                       \
        nvmlReturn_t result = read_scaled(__func__, device, signal, scale, out ? &number : NULL);                      \
        if (result == NVML_SUCCESS)                                                                                    \
            *out = (type)number;                                                                                       \
        return result;                                                                                                 \
    }

READ(nvmlDeviceGetBrand, nvmlBrandType_t, S_brand, 1)
READ(nvmlDeviceGetArchitecture, nvmlDeviceArchitecture_t, S_architecture, 1)
READ(nvmlDeviceGetPowerUsage, unsigned int, S_power, 1000)
READ(nvmlDeviceGetEnforcedPowerLimit, unsigned int, S_power_limit, 1000)
READ(nvmlDeviceGetPowerManagementLimit, unsigned int, S_power_limit, 1000)
READ(nvmlDeviceGetPowerManagementDefaultLimit, unsigned int, S_power_limit_default, 1000)
READ(nvmlDeviceGetNumFans, unsigned int, S_fans, 1)
READ(nvmlDeviceGetFanSpeed, unsigned int, S_fan_speed, 1)
READ(nvmlDeviceGetPerformanceState, nvmlPstates_t, S_performance_state, 1)
READ(nvmlDeviceGetPersistenceMode, nvmlEnableState_t, S_persistence_mode, 1)
READ(nvmlDeviceGetComputeMode, nvmlComputeMode_t, S_compute_mode, 1)
READ(nvmlDeviceGetVirtualizationMode, nvmlGpuVirtualizationMode_t, S_virtualization_mode, 1)
READ(nvmlDeviceGetPcieReplayCounter, unsigned int, S_pcie_replays, 1)
READ(nvmlDeviceGetCurrPcieLinkGeneration, unsigned int, S_pcie_generation, 1)
READ(nvmlDeviceGetCurrPcieLinkWidth, unsigned int, S_pcie_width, 1)
READ(nvmlDeviceGetMaxPcieLinkGeneration, unsigned int, S_pcie_max_generation, 1)
READ(nvmlDeviceGetMaxPcieLinkWidth, unsigned int, S_pcie_max_width, 1)

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length)
{
    CALL(device, ANY_DEVICE);
    char full[2 * TEXT_LENGTH + 8];
    if (call.mig_index == WHOLE)
        return copy_text(call.gpu->texts[T_name], name, length);
    snprintf(full, sizeof full, "%s MIG %s", call.gpu->texts[T_name], call.target->texts[T_profile]);
    return copy_text(full, name, length);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
    return read_text(__func__, device, T_uuid, uuid, length);
}

nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *serial, unsigned int length)
{
    return read_text(__func__, device, T_serial, serial, length);
}

nvmlReturn_t nvmlDeviceGetVbiosVersion(nvmlDevice_t device, char *version, unsigned int length)
{
    return read_text(__func__, device, T_vbios, version, length);
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index)
{
    CALL(device, ANY_DEVICE);
    REQUIRE(index);
    *index = (unsigned int)(call.mig_index == WHOLE ? call.gpu_index : call.mig_index);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *minor)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(minor);
    *minor = (unsigned int)call.gpu_index;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(pci);
    const char *bus_id = call.gpu->texts[T_pci_bus_id];
    if (sscanf(bus_id, "%x:%x:%x", &pci->domain, &pci->bus, &pci->device) != 3)
        return NVML_ERROR_UNKNOWN;
    snprintf(pci->busId, sizeof pci->busId, "%.31s", bus_id);
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%.12s", bus_id + 4);
    pci->pciDeviceId = (unsigned int)constant(call.gpu, S_pci_device_id);
    pci->pciSubSystemId = (unsigned int)constant(call.gpu, S_pci_subsystem_id);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    CALL(device, ANY_DEVICE);
    REQUIRE(major && minor);
    *major = (int)constant(call.gpu, S_compute_major);
    *minor = (int)constant(call.gpu, S_compute_minor);
    return NVML_SUCCESS;
}

// Version 1 knows no reserved memory and counts it as used.
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    CALL(device, ANY_DEVICE);
    REQUIRE(memory);
    SUPPORTED(S_memory_used);
    memory->total = (unsigned long long)value(&call, S_memory_total);
    memory->used = (unsigned long long)(value(&call, S_memory_used) + value(&call, S_memory_reserved));
    memory->free = memory->used < memory->total ? memory->total - memory->used : 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    CALL(device, ANY_DEVICE);
    REQUIRE(memory);
    VERSION(memory, nvmlMemory_v2);
    SUPPORTED(S_memory_used);
    memory->total = (unsigned long long)value(&call, S_memory_total);
    memory->used = (unsigned long long)value(&call, S_memory_used);
    memory->reserved = (unsigned long long)value(&call, S_memory_reserved);
    unsigned long long taken = memory->used + memory->reserved;
    memory->free = taken < memory->total ? memory->total - taken : 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *memory)
{
    CALL(device, ANY_DEVICE);
    REQUIRE(memory);
    SUPPORTED(S_bar1_used);
    memory->bar1Total = (unsigned long long)constant(call.gpu, S_bar1_total);
    memory->bar1Used = (unsigned long long)value(&call, S_bar1_used);
    memory->bar1Free = memory->bar1Used < memory->bar1Total ? memory->bar1Total - memory->bar1Used : 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(utilization);
    SUPPORTED(S_gpu_utilization);
    if (constant(call.gpu, S_mig_mode))
        return NVML_ERROR_NOT_SUPPORTED;
    utilization->gpu = (unsigned int)(value(&call, S_gpu_utilization) + 0.5);
    utilization->memory = (unsigned int)(value(&call, S_memory_utilization) + 0.5);
    return NVML_SUCCESS;
}

static nvmlReturn_t read_engine(const char *function, nvmlDevice_t device, enum signal signal, unsigned int *percent,
                                unsigned int *period)
{
    CALL_AS(enter(&call, function, device, WHOLE_GPU));
    REQUIRE(percent && period);
    SUPPORTED(signal);
    if (constant(call.gpu, S_mig_mode))
        return NVML_ERROR_NOT_SUPPORTED;
    *percent = (unsigned int)(value(&call, signal) + 0.5);
    *period = (unsigned int)(constant(call.gpu, S_sample_period) * 1e6 + 0.5);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetEncoderUtilization(nvmlDevice_t device, unsigned int *percent, unsigned int *period)
{
    return read_engine(__func__, device, S_encoder_utilization, percent, period);
}

nvmlReturn_t nvmlDeviceGetDecoderUtilization(nvmlDevice_t device, unsigned int *percent, unsigned int *period)
{
    return read_engine(__func__, device, S_decoder_utilization, percent, period);
}

nvmlReturn_t nvmlDeviceGetJpgUtilization(nvmlDevice_t device, unsigned int *percent, unsigned int *period)
{
    return read_engine(__func__, device, S_jpeg_utilization, percent, period);
}

nvmlReturn_t nvmlDeviceGetOfaUtilization(nvmlDevice_t device, unsigned int *percent, unsigned int *period)
{
    return read_engine(__func__, device, S_ofa_utilization, percent, period);
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int *clock)
{
    static const enum signal clocks[] = {S_graphics_clock, S_sm_clock, S_memory_clock, S_video_clock};
    REQUIRE((unsigned int)type < NVML_CLOCK_COUNT);
    return read_scaled(__func__, device, clocks[type], 1, clock);
}

nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int *clock)
{
    static const enum signal clocks[] = {S_max_graphics_clock, S_max_sm_clock, S_max_memory_clock, S_max_video_clock};
    REQUIRE((unsigned int)type < NVML_CLOCK_COUNT);
    return read_scaled(__func__, device, clocks[type], 1, clock);
}

static const struct {
    enum signal signal;
    unsigned long long bit;
} reasons[] = {
    {S_reason_gpu_idle, nvmlClocksEventReasonGpuIdle},
    {S_reason_applications_clocks, nvmlClocksEventReasonApplicationsClocksSetting},
    {S_reason_sw_power_cap, nvmlClocksEventReasonSwPowerCap},
    {S_reason_hw_slowdown, nvmlClocksThrottleReasonHwSlowdown},
    {S_reason_sync_boost, nvmlClocksEventReasonSyncBoost},
    {S_reason_sw_thermal, nvmlClocksEventReasonSwThermalSlowdown},
    {S_reason_hw_thermal, nvmlClocksThrottleReasonHwThermalSlowdown},
    {S_reason_hw_power_brake, nvmlClocksThrottleReasonHwPowerBrakeSlowdown},
    {S_reason_display, nvmlClocksEventReasonDisplayClockSetting},
};

static nvmlReturn_t read_reasons(const char *function, nvmlDevice_t device, int supported, unsigned long long *mask)
{
    CALL_AS(enter(&call, function, device, WHOLE_GPU));
    REQUIRE(mask);
    *mask = 0;
    for (size_t n = 0; n < sizeof reasons / sizeof *reasons; n++)
        if (has(&call, reasons[n].signal) && (supported || value(&call, reasons[n].signal) > 0.5))
            *mask |= reasons[n].bit;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *mask)
{
    return read_reasons(__func__, device, 0, mask);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, unsigned long long *mask)
{
    return read_reasons(__func__, device, 0, mask);
}

nvmlReturn_t nvmlDeviceGetSupportedClocksEventReasons(nvmlDevice_t device, unsigned long long *mask)
{
    return read_reasons(__func__, device, 1, mask);
}

nvmlReturn_t nvmlDeviceGetSupportedClocksThrottleReasons(nvmlDevice_t device, unsigned long long *mask)
{
    return read_reasons(__func__, device, 1, mask);
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensor, unsigned int *degrees)
{
    REQUIRE(sensor == NVML_TEMPERATURE_GPU);
    return read_scaled(__func__, device, S_temperature, 1, degrees);
}

nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, nvmlTemperatureThresholds_t type,
                                               unsigned int *degrees)
{
    static const enum signal thresholds[] = {S_temperature_shutdown, S_temperature_slowdown, S_temperature_memory_max,
                                             S_temperature_gpu_max};
    REQUIRE((unsigned int)type < NVML_TEMPERATURE_THRESHOLD_COUNT);
    if (type > NVML_TEMPERATURE_THRESHOLD_GPU_MAX)
        return NVML_ERROR_NOT_SUPPORTED;
    return read_scaled(__func__, device, thresholds[type], 1, degrees);
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned int *least, unsigned int *most)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(least && most);
    SUPPORTED(S_power_limit_max);
    *least = (unsigned int)(value(&call, S_power_limit_min) * 1000);
    *most = (unsigned int)(value(&call, S_power_limit_max) * 1000);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *millijoules)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(millijoules);
    SUPPORTED(S_energy);
    *millijoules = (unsigned long long)((value(&call, S_energy) + total(&call, S_power)) * 1000);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetFanSpeed_v2(nvmlDevice_t device, unsigned int fan, unsigned int *percent)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(percent && fan < (unsigned int)constant(call.gpu, S_fans));
    SUPPORTED(S_fan_speed);
    *percent = (unsigned int)(value(&call, S_fan_speed) + 0.5);
    return NVML_SUCCESS;
}

// The real call measures for 20 ms before it answers, which is what callers have to live with.
nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t device, nvmlPcieUtilCounter_t counter, unsigned int *kilobytes)
{
    REQUIRE((unsigned int)counter < NVML_PCIE_UTIL_COUNT);
    nvmlReturn_t result = read_scaled(__func__, device,
                                      counter == NVML_PCIE_UTIL_TX_BYTES ? S_pcie_tx_rate : S_pcie_rx_rate, 1e-3,
                                      kilobytes);
    if (result == NVML_SUCCESS)
        clock_sleep(0.02);
    return result;
}

nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, nvmlGpuFabricInfoV_t *info)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(info);
    nvmlGpuFabricInfo_v2_t *old = (nvmlGpuFabricInfo_v2_t *)info;
    if (old->version != nvmlGpuFabricInfo_v2 && old->version != nvmlGpuFabricInfo_v3)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    SUPPORTED(S_fabric_state);
    memset(old->clusterUuid, 0, sizeof old->clusterUuid);
    old->status = NVML_SUCCESS;
    old->cliqueId = 0;
    old->state = (nvmlGpuFabricState_t)value(&call, S_fabric_state);
    old->healthMask = 0;
    if (old->version == nvmlGpuFabricInfo_v3)
        ((nvmlGpuFabricInfo_v3_t *)info)->healthSummary = 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetC2cModeInfoV(nvmlDevice_t device, nvmlC2cModeInfo_v1_t *info)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(info);
    SUPPORTED(S_c2c);
    info->isC2cEnabled = value(&call, S_c2c) > 0;
    return NVML_SUCCESS;
}
