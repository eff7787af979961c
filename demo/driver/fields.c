// Field values, which ask for many numbers at once, and throttle times.
#include "driver.h"

#include <stdio.h>

enum form { LEVEL, INTEGRAL, SUM, LINK, LINK_INTEGRAL, MARGIN, REASONS };

// LEVEL: the value of a signal. INTEGRAL: a counter (the second signal) that integrates the first. SUM: of the two.
// LINK*: a share of all links, the link in the scope. MARGIN: degrees below the limit of the GPU. REASONS: time for
// which either held.
struct field {
    unsigned int id;
    enum form form;
    enum signal signal, other;
    double scale;
    nvmlValueType_t type;
};

#define UINT NVML_VALUE_TYPE_UNSIGNED_INT
#define ULL NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
#define LEVEL_OF(id, signal, scale, type) {NVML_FI_DEV_##id, LEVEL, S_##signal, S_##signal, scale, type}
#define NANOSECONDS_OF(id, one, other) {NVML_FI_DEV_##id, REASONS, S_reason_##one, S_reason_##other, 1e9, ULL}

static const struct field fields[] = {
    {NVML_FI_DEV_ECC_SBE_VOL_TOTAL, SUM, S_ecc_dram_corrected_volatile, S_ecc_sram_corrected_volatile, 1, ULL},
    {NVML_FI_DEV_ECC_DBE_VOL_TOTAL, SUM, S_ecc_dram_uncorrected_volatile, S_ecc_sram_uncorrected_volatile, 1, ULL},
    {NVML_FI_DEV_ECC_SBE_AGG_TOTAL, SUM, S_ecc_dram_corrected_aggregate, S_ecc_sram_corrected_aggregate, 1, ULL},
    {NVML_FI_DEV_ECC_DBE_AGG_TOTAL, SUM, S_ecc_dram_uncorrected_aggregate, S_ecc_sram_uncorrected_aggregate, 1, ULL},
    NANOSECONDS_OF(PERF_POLICY_POWER, sw_power_cap, sw_power_cap),
    NANOSECONDS_OF(PERF_POLICY_THERMAL, sw_thermal, hw_thermal),
    NANOSECONDS_OF(PERF_POLICY_SYNC_BOOST, sync_boost, sync_boost),
    NANOSECONDS_OF(PERF_POLICY_BOARD_LIMIT, hw_power_brake, hw_power_brake),
    LEVEL_OF(MEMORY_TEMP, temperature_memory, 1, UINT),
    {NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, INTEGRAL, S_power, S_energy, 1000, ULL},
    LEVEL_OF(NVLINK_LINK_COUNT, nvlinks, 1, UINT),
    LEVEL_OF(PCIE_REPLAY_COUNTER, pcie_replays, 1, UINT),
    {NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, LINK_INTEGRAL, S_nvlink_tx_rate, S_nvlinks, 1.0 / 1024, ULL},
    {NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, LINK_INTEGRAL, S_nvlink_rx_rate, S_nvlinks, 1.0 / 1024, ULL},
    {NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_TX, LINK_INTEGRAL, S_nvlink_tx_rate, S_nvlinks, 1.1 / 1024, ULL},
    {NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_RX, LINK_INTEGRAL, S_nvlink_rx_rate, S_nvlinks, 1.1 / 1024, ULL},
    LEVEL_OF(REMAPPED_COR, remapped_rows_correctable, 1, UINT),
    LEVEL_OF(REMAPPED_UNC, remapped_rows_uncorrectable, 1, UINT),
    LEVEL_OF(REMAPPED_PENDING, remapped_rows_pending, 1, UINT),
    LEVEL_OF(REMAPPED_FAILURE, remapped_rows_failure, 1, UINT),
    LEVEL_OF(PCIE_COUNT_CORRECTABLE_ERRORS, pcie_correctable_errors, 1, UINT),
    LEVEL_OF(PCIE_COUNT_FATAL_ERROR, pcie_fatal_errors, 1, UINT),
    LEVEL_OF(POWER_AVERAGE, power, 1000, UINT),
    LEVEL_OF(POWER_INSTANT, power, 1000, UINT),
    LEVEL_OF(POWER_MIN_LIMIT, power_limit_min, 1000, UINT),
    LEVEL_OF(POWER_MAX_LIMIT, power_limit_max, 1000, UINT),
    LEVEL_OF(POWER_DEFAULT_LIMIT, power_limit_default, 1000, UINT),
    LEVEL_OF(POWER_CURRENT_LIMIT, power_limit, 1000, UINT),
    {NVML_FI_DEV_ENERGY, INTEGRAL, S_power, S_energy, 1000, ULL},
    {NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT, MARGIN, S_temperature_shutdown, S_temperature_gpu_max, 1,
     NVML_VALUE_TYPE_SIGNED_INT},
    {NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT, MARGIN, S_temperature_slowdown, S_temperature_gpu_max, 1,
     NVML_VALUE_TYPE_SIGNED_INT},
    {NVML_FI_DEV_TEMPERATURE_MEM_MAX_TLIMIT, MARGIN, S_temperature_memory_max, S_temperature_gpu_max, 1,
     NVML_VALUE_TYPE_SIGNED_INT},
    {NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT, MARGIN, S_temperature_gpu_max, S_temperature_gpu_max, 1,
     NVML_VALUE_TYPE_SIGNED_INT},
    {NVML_FI_DEV_PCIE_COUNT_TX_BYTES, INTEGRAL, S_pcie_tx_rate, S_pcie_tx_bytes, 1, ULL},
    {NVML_FI_DEV_PCIE_COUNT_RX_BYTES, INTEGRAL, S_pcie_rx_rate, S_pcie_rx_bytes, 1, ULL},
    {NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES, LINK_INTEGRAL, S_nvlink_tx_rate, S_nvlinks, 1, ULL},
    {NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES, LINK_INTEGRAL, S_nvlink_rx_rate, S_nvlinks, 1, ULL},
    {NVML_FI_DEV_NVLINK_COUNT_RCV_ERRORS, LINK, S_nvlink_errors, S_nvlinks, 1, ULL},
    LEVEL_OF(GET_GPU_RECOVERY_ACTION, recovery_action, 1, UINT),
    NANOSECONDS_OF(CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN, sw_thermal, sw_thermal),
    NANOSECONDS_OF(CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN, hw_thermal, hw_thermal),
    NANOSECONDS_OF(CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN, hw_power_brake, hw_power_brake),
    LEVEL_OF(MMA_STALL_PERCENT, mma_stall, 1, UINT),
    LEVEL_OF(GPU_TEMP, temperature, 1, NVML_VALUE_TYPE_SIGNED_INT),
};

static nvmlReturn_t compute(const struct call *call, const struct field *field, unsigned int scope, double *out)
{
    if (!has(call, field->signal) || !has(call, field->other))
        return NVML_ERROR_NOT_SUPPORTED;
    double links = constant(call->gpu, S_nvlinks);
    switch (field->form) {
    case LEVEL: *out = value(call, field->signal); break;
    case INTEGRAL: *out = value(call, field->other) + total(call, field->signal); break;
    case SUM: *out = value(call, field->signal) + value(call, field->other); break;
    case MARGIN: *out = value(call, field->other) - value(call, field->signal); break;
    case REASONS:
        *out = total(call, field->signal) + (field->other == field->signal ? 0 : total(call, field->other));
        break;
    case LINK:
    case LINK_INTEGRAL:
        if (links == 0)
            return NVML_ERROR_NOT_SUPPORTED;
        // A scope of all ones asks for the sum over the links.
        REQUIRE(scope < links || scope == 0xFFFFFFFF);
        *out = (field->form == LINK ? value(call, field->signal) : total(call, field->signal)) /
               (scope < links ? links : 1);
        break;
    }
    *out *= field->scale;
    return NVML_SUCCESS;
}

static void store(nvmlFieldValue_t *out, nvmlValueType_t type, double number)
{
    out->valueType = type;
    out->value.ullVal = 0;
    if (type == NVML_VALUE_TYPE_SIGNED_INT)
        out->value.siVal = (int)number;
    else if (type == UINT)
        out->value.uiVal = (unsigned int)(number + 0.5);
    else
        out->value.ullVal = (unsigned long long)number;
}

static void answer(const struct call *call, nvmlFieldValue_t *out)
{
    char name[32];
    double number = 0;
    snprintf(name, sizeof name, "field:%u", out->fieldId);
    out->timestamp = (long long)(call->now * 1e6);
    out->latencyUsec = 0;
    out->nvmlReturn = (nvmlReturn_t)scenario_rule(call->scenario, call->gpu_index, name);
    if (out->nvmlReturn != NVML_SUCCESS)
        return;
    out->nvmlReturn =
        out->fieldId == 0 || out->fieldId >= NVML_FI_MAX ? NVML_ERROR_INVALID_ARGUMENT : NVML_ERROR_NOT_SUPPORTED;
    for (size_t n = 0; n < sizeof fields / sizeof *fields; n++)
        if (fields[n].id == out->fieldId) {
            out->nvmlReturn = compute(call, &fields[n], out->scopeId, &number);
            if (out->nvmlReturn == NVML_SUCCESS)
                store(out, fields[n].type, number);
        }
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(values && count > 0);
    for (int n = 0; n < count; n++)
        answer(&call, &values[n]);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetViolationStatus(nvmlDevice_t device, nvmlPerfPolicyType_t policy, nvmlViolationTime_t *time)
{
    static const unsigned int policies[] = {NVML_FI_DEV_PERF_POLICY_POWER, NVML_FI_DEV_PERF_POLICY_THERMAL,
                                            NVML_FI_DEV_PERF_POLICY_SYNC_BOOST, NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT};
    CALL(device, WHOLE_GPU);
    REQUIRE(time && (unsigned int)policy < NVML_PERF_POLICY_COUNT);
    if ((size_t)policy >= sizeof policies / sizeof *policies)
        return NVML_ERROR_NOT_SUPPORTED;
    nvmlFieldValue_t held = {.fieldId = policies[policy]};
    answer(&call, &held);
    time->referenceTime = (unsigned long long)(call.now * 1e6);
    time->violationTime = held.value.ullVal;
    return held.nvmlReturn;
}
