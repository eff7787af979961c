// MIG: devices, what they are made of, and what else would fit.
#include "driver.h"

#include <stdio.h>

enum { MEMORY_SLICES = 8 };

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *now, unsigned int *pending)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(now && pending);
    SUPPORTED(S_mig_mode);
    *now = *pending = (unsigned int)constant(call.gpu, S_mig_mode);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count)
{
    CALL(device, WHOLE_GPU);
    REQUIRE(count);
    *count = has(&call, S_mig_mode) ? MAX_MIG_DEVICES : 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *mig)
{
    CALL(device, WHOLE_GPU);
    SUPPORTED(S_mig_mode);
    REQUIRE(mig && index < MAX_MIG_DEVICES);
    if ((int)index >= call.scenario->mig_count[call.gpu_index])
        return NVML_ERROR_NOT_FOUND;
    *mig = device_handle(call.gpu_index, (int)index);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *is_mig)
{
    CALL(device, ANY_DEVICE);
    REQUIRE(is_mig);
    *is_mig = call.mig_index != WHOLE;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t mig, nvmlDevice_t *device)
{
    CALL(mig, ANY_DEVICE);
    REQUIRE(device && call.mig_index != WHOLE);
    *device = device_handle(call.gpu_index, WHOLE);
    return NVML_SUCCESS;
}

static nvmlReturn_t read_id(const char *function, nvmlDevice_t mig, enum signal signal, unsigned int *id)
{
    CALL_AS(enter(&call, function, mig, ANY_DEVICE));
    REQUIRE(id && call.mig_index != WHOLE);
    *id = (unsigned int)constant(call.target, signal);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t mig, unsigned int *id)
{
    return read_id(__func__, mig, S_gpu_instance, id);
}

nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t mig, unsigned int *id)
{
    return read_id(__func__, mig, S_compute_instance, id);
}

nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t mig, nvmlDeviceAttributes_t *attributes)
{
    CALL(mig, ANY_DEVICE);
    REQUIRE(attributes);
    if (call.mig_index == WHOLE)
        return NVML_ERROR_NOT_SUPPORTED;
    *attributes = (nvmlDeviceAttributes_t){
        .multiprocessorCount = (unsigned int)constant(call.target, S_multiprocessors),
        .sharedCopyEngineCount = (unsigned int)constant(call.target, S_copy_engines),
        .sharedDecoderCount = (unsigned int)constant(call.target, S_decoders),
        .sharedEncoderCount = (unsigned int)constant(call.target, S_encoders),
        .sharedJpegCount = (unsigned int)constant(call.target, S_jpegs),
        .sharedOfaCount = (unsigned int)constant(call.target, S_ofas),
        .gpuInstanceSliceCount = (unsigned int)constant(call.target, S_slices),
        .computeInstanceSliceCount = (unsigned int)constant(call.target, S_slices),
        .memorySizeMB = (unsigned long long)constant(call.target, S_memory_total) >> 20,
    };
    return NVML_SUCCESS;
}

// Profiles are looked up by their index when described and by their id when counted.
static const struct entity *find_profile(const struct call *call, enum signal key, unsigned int wanted)
{
    EACH(call->scenario, profile, PROFILE)
        if (profile->gpu == call->gpu_index && constant(profile, key) == wanted)
            return profile;
    return NULL;
}

static nvmlReturn_t describe_profile(const char *function, nvmlDevice_t device, unsigned int index,
                                     nvmlGpuInstanceProfileInfo_v2_t *info)
{
    CALL_AS(enter(&call, function, device, WHOLE_GPU));
    REQUIRE(index < NVML_GPU_INSTANCE_PROFILE_COUNT);
    const struct entity *profile = find_profile(&call, S_profile_index, index);
    if (!profile || !constant(call.gpu, S_mig_mode))
        return NVML_ERROR_NOT_SUPPORTED;
    *info = (nvmlGpuInstanceProfileInfo_v2_t){
        .version = info->version,
        .id = (unsigned int)constant(profile, S_profile_id),
        .sliceCount = (unsigned int)constant(profile, S_slices),
        .instanceCount = (unsigned int)constant(profile, S_instances),
        .multiprocessorCount = (unsigned int)constant(profile, S_multiprocessors),
        .copyEngineCount = (unsigned int)constant(profile, S_copy_engines),
        .decoderCount = (unsigned int)constant(profile, S_decoders),
        .encoderCount = (unsigned int)constant(profile, S_encoders),
        .jpegCount = (unsigned int)constant(profile, S_jpegs),
        .ofaCount = (unsigned int)constant(profile, S_ofas),
        .memorySizeMB = (unsigned long long)constant(profile, S_memory_total) >> 20,
    };
    snprintf(info->name, sizeof info->name, "MIG %.64s", profile->texts[T_profile_name]);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfo(nvmlDevice_t device, unsigned int index,
                                                 nvmlGpuInstanceProfileInfo_t *info)
{
    REQUIRE(info);
    nvmlGpuInstanceProfileInfo_v2_t full = {0};
    nvmlReturn_t result = describe_profile(__func__, device, index, &full);
    if (result == NVML_SUCCESS)
        *info = (nvmlGpuInstanceProfileInfo_t){
            .id = full.id,
            .sliceCount = full.sliceCount,
            .instanceCount = full.instanceCount,
            .multiprocessorCount = full.multiprocessorCount,
            .copyEngineCount = full.copyEngineCount,
            .decoderCount = full.decoderCount,
            .encoderCount = full.encoderCount,
            .jpegCount = full.jpegCount,
            .ofaCount = full.ofaCount,
            .memorySizeMB = full.memorySizeMB,
        };
    return result;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfoV(nvmlDevice_t device, unsigned int index,
                                                  nvmlGpuInstanceProfileInfo_v2_t *info)
{
    REQUIRE(info);
    VERSION(info, nvmlGpuInstanceProfileInfo_v2);
    return describe_profile(__func__, device, index, info);
}

static nvmlReturn_t enter_privileged(struct call *call, const char *function, nvmlDevice_t device)
{
    nvmlReturn_t result = enter(call, function, device, WHOLE_GPU);
    if (result != NVML_SUCCESS)
        return result;
    if (!constant(call->scenario->system, S_privileged))
        return NVML_ERROR_NO_PERMISSION;
    return constant(call->gpu, S_mig_mode) ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceRemainingCapacity(nvmlDevice_t device, unsigned int id, unsigned int *count)
{
    CALL_AS(enter_privileged(&call, __func__, device));
    const struct entity *profile = find_profile(&call, S_profile_id, id);
    REQUIRE(count && profile);
    *count = (unsigned int)constant(profile, S_remaining);
    return NVML_SUCCESS;
}

// All places where instances of the profile may go, taken or not.
nvmlReturn_t nvmlDeviceGetGpuInstancePossiblePlacements_v2(nvmlDevice_t device, unsigned int id,
                                                           nvmlGpuInstancePlacement_t *placements, unsigned int *count)
{
    CALL_AS(enter_privileged(&call, __func__, device));
    const struct entity *profile = find_profile(&call, S_profile_id, id);
    REQUIRE(count && profile);
    unsigned int mask = (unsigned int)constant(profile, S_placements), room = placements ? *count : MEMORY_SLICES;
    unsigned int found = 0;
    for (unsigned int start = 0; start < MEMORY_SLICES; start++) {
        if (!(mask >> start & 1))
            continue;
        if (placements && found < room)
            placements[found] =
                (nvmlGpuInstancePlacement_t){start, (unsigned int)constant(profile, S_placement_size)};
        found++;
    }
    *count = found;
    return found > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

// A GPU instance is as good a handle as the MIG device that fills it.
nvmlReturn_t nvmlDeviceGetGpuInstances(nvmlDevice_t device, unsigned int id, nvmlGpuInstance_t *instances,
                                       unsigned int *count)
{
    CALL_AS(enter_privileged(&call, __func__, device));
    REQUIRE(instances && count && find_profile(&call, S_profile_id, id));
    *count = 0;
    EACH(call.scenario, mig, MIG)
        if (mig->gpu == call.gpu_index && constant(mig, S_profile_id) == id)
            instances[(*count)++] = (nvmlGpuInstance_t)device_handle(mig->gpu, mig->mig);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpuInstanceGetInfo(nvmlGpuInstance_t instance, nvmlGpuInstanceInfo_t *info)
{
    CALL((nvmlDevice_t)instance, ANY_DEVICE);
    REQUIRE(info && call.mig_index != WHOLE);
    if (!constant(call.scenario->system, S_privileged))
        return NVML_ERROR_NO_PERMISSION;
    *info = (nvmlGpuInstanceInfo_t){
        .device = device_handle(call.gpu_index, WHOLE),
        .id = (unsigned int)constant(call.target, S_gpu_instance),
        .profileId = (unsigned int)constant(call.target, S_profile_id),
        .placement = {(unsigned int)constant(call.target, S_placement),
                      (unsigned int)constant(call.target, S_placement_size)},
    };
    return NVML_SUCCESS;
}
