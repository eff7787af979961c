// The simulated driver, inside: what a scenario holds and how a call finds its part of it.
#ifndef PALEGREEN_DRIVER_H
#define PALEGREEN_DRIVER_H

#include <nvml.h>
#include <stddef.h>

#include "vocabulary.h" // SIGNALS(X) and TEXTS(X): generated from scenario.py at build time

enum { MAX_GPUS = 32, MAX_MIG_DEVICES = 7, TEXT_LENGTH = 96, WHOLE = -1 };

#define ENUMERATE(name) S_##name,
enum signal { SIGNALS(ENUMERATE) SIGNAL_COUNT };
#undef ENUMERATE
#define ENUMERATE(name) T_##name,
enum text { TEXTS(ENUMERATE) TEXT_COUNT };
#undef ENUMERATE

enum shape { ABSENT, CONSTANT, SINE, SQUARE };

struct wave {
    enum shape shape;
    double base, amplitude, period, phase, duty;
};

enum kind { SYSTEM, GPU, MIG, PROFILE, PROCESS, EVENT };

// Anything a scenario tells about: a bag of numbers and texts. Processes, profiles and MIG devices belong to a GPU.
struct entity {
    struct entity *next;
    enum kind kind;
    int gpu, mig;
    struct wave signals[SIGNAL_COUNT];
    double totals[SIGNAL_COUNT]; // integrals of the signals up to where this scenario took over
    char texts[TEXT_COUNT][TEXT_LENGTH];
};

// One line of what goes wrong; a code of HANG keeps the call from returning.
struct rule {
    struct rule *next;
    int gpu, code;
    char function[TEXT_LENGTH];
};
enum { EVERY_GPU = -1, NO_GPU = -2, HANG = -1 };

// Immutable once in use. Waves run from `start`; from `since` on, what they add up to counts.
struct scenario {
    int references;
    double start, since;
    struct entity *entities;
    struct rule *rules;
    int gpu_count, mig_count[MAX_GPUS];
    const struct entity *gpus[MAX_GPUS], *migs[MAX_GPUS][MAX_MIG_DEVICES], *system;
};

// scenario.c
const struct scenario *scenario_acquire(double *now); // NULL: there is none
void scenario_release(const struct scenario *scenario);
int scenario_rule(const struct scenario *scenario, int gpu, const char *function); // a code, 0 where none applies
const char *scenario_path(void);
double wave_value(const struct scenario *scenario, const struct wave *wave, double time);
double wave_total(const struct scenario *scenario, const struct entity *entity, enum signal signal, double time);
double clock_now(void);
void clock_sleep(double seconds);

// samples.c: keep what the scenario that ends at `until` would have had sampled
void samples_record(const struct scenario *scenario, double until);

// driver.c: one call of the library, from its checks to the release of its scenario
struct call {
    const struct scenario *scenario;
    const struct entity *gpu, *target; // the target of a call on a MIG device is that device
    int gpu_index, mig_index;
    double now;
};

enum scope { WHOLE_GPU, ANY_DEVICE };

nvmlReturn_t enter(struct call *call, const char *function, nvmlDevice_t device, enum scope scope);
nvmlReturn_t enter_gpu(struct call *call, const char *function, int gpu, int mig);
void leave(struct call *call);
nvmlDevice_t device_handle(int gpu, int mig);
nvmlReturn_t copy_text(const char *text, char *buffer, unsigned int length);

#define CALL_AS(entering)                                                                                              \
    __attribute__((cleanup(leave))) struct call call = {0};                                                            \
    nvmlReturn_t refused = entering;                                                                                   \
    if (refused != NVML_SUCCESS)                                                                                       \
    return refused
#define CALL(device, scope) CALL_AS(enter(&call, __func__, device, scope))
#define SYSTEM_CALL() CALL_AS(enter_gpu(&call, __func__, NO_GPU, WHOLE))
#define REQUIRE(condition)                                                                                             \
    if (!(condition))                                                                                                  \
    return NVML_ERROR_INVALID_ARGUMENT
#define SUPPORTED(signal)                                                                                              \
    if (!has(&call, signal))                                                                                           \
    return NVML_ERROR_NOT_SUPPORTED
#define VERSION(structure, expected)                                                                                   \
    if ((structure)->version != (expected))                                                                            \
    return NVML_ERROR_ARGUMENT_VERSION_MISMATCH

static inline int has(const struct call *call, enum signal signal)
{
    return call->target->signals[signal].shape != ABSENT;
}

static inline double value(const struct call *call, enum signal signal)
{
    return wave_value(call->scenario, &call->target->signals[signal], call->now);
}

static inline double constant(const struct entity *entity, enum signal signal)
{
    return entity->signals[signal].base;
}

// The integral of a signal: watts to joules, a reason that holds to the time for which it held.
static inline double total(const struct call *call, enum signal signal)
{
    return wave_total(call->scenario, call->target, signal, call->now);
}

#define EACH(scenario, item, wanted)                                                                                   \
    for (const struct entity *item = (scenario)->entities; item; item = item->next)                                    \
        if (item->kind == (wanted))

#endif
