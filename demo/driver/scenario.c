// Reads the compiled scenario, notices when it changes, and gives signals their value at a time.
#include "driver.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define ENVIRONMENT_VARIABLE "PALEGREEN_SIMULATED_DRIVER"
#define LOOK_EVERY 0.02
#define TURN 6.283185307179586

#define NAME(name) #name,
static const char *const signal_names[] = {SIGNALS(NAME)};
static const char *const text_names[] = {TEXTS(NAME)};
static const char *const kind_names[] = {"system", "gpu", "mig", "profile", "process", "event"};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct scenario *current;
static struct stat seen;
static double looked, loaded, served; // when last: files compared, library loaded, a call given its time

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

double clock_now(void)
{
    return seconds(CLOCK_REALTIME);
}

void clock_sleep(double duration)
{
    struct timespec pause = {(time_t)duration, (long)((duration - floor(duration)) * 1e9)};
    nanosleep(&pause, NULL);
}

static double phase_time(const struct scenario *scenario, const struct wave *wave, double time)
{
    return time - scenario->start + wave->phase;
}

double wave_value(const struct scenario *scenario, const struct wave *wave, double time)
{
    double turns = phase_time(scenario, wave, time) / wave->period;
    if (wave->shape == SINE)
        return wave->base + wave->amplitude * sin(TURN * turns);
    if (wave->shape == SQUARE)
        return wave->base + wave->amplitude * (turns - floor(turns) < wave->duty ? 1 : -1);
    return wave->base;
}

// What the swing around the base adds up to: nothing over a whole period, unless it is longer high than low.
static double swing_total(const struct scenario *scenario, const struct wave *wave, double time)
{
    double turns = phase_time(scenario, wave, time) / wave->period;
    double part = turns - floor(turns);
    if (wave->shape == SINE)
        return -wave->amplitude * wave->period / TURN * cos(TURN * part);
    if (wave->shape == SQUARE)
        return wave->amplitude * wave->period *
               (floor(turns) * (2 * wave->duty - 1) + (part < wave->duty ? part : 2 * wave->duty - part));
    return 0;
}

double wave_total(const struct scenario *scenario, const struct entity *entity, enum signal signal, double time)
{
    const struct wave *wave = &entity->signals[signal];
    double from = scenario->since;
    return entity->totals[signal] + wave->base * (time - from) +
           swing_total(scenario, wave, time) - swing_total(scenario, wave, from);
}

int scenario_rule(const struct scenario *scenario, int gpu, const char *function)
{
    for (const struct rule *rule = scenario->rules; rule; rule = rule->next)
        if ((rule->gpu == gpu || rule->gpu == EVERY_GPU) &&
            (!strcmp(rule->function, "*") || !strcmp(rule->function, function)))
            return rule->code;
    return 0;
}

static void discard(struct scenario *scenario)
{
    for (struct entity *entity = scenario->entities, *next; entity; entity = next) {
        next = entity->next;
        free(entity);
    }
    for (struct rule *rule = scenario->rules, *next; rule; rule = next) {
        next = rule->next;
        free(rule);
    }
    free(scenario);
}

static int find(const char *const *names, int count, const char *name)
{
    for (int n = 0; n < count; n++)
        if (!strcmp(names[n], name))
            return n;
    return -1;
}

static int read_signal(struct entity *entity, const char *line)
{
    char name[64], shape[16] = "";
    struct wave wave = {CONSTANT, 0, 0, 1, 0, 0.5};
    int fields = sscanf(line, "%63s %lf %15s %lf %lf %lf %lf", name, &wave.base, shape, &wave.amplitude,
                        &wave.period, &wave.phase, &wave.duty);
    int signal = find(signal_names, SIGNAL_COUNT, name);
    if (signal < 0 || (fields != 2 && fields != 7))
        return 0;
    if (fields == 7)
        wave.shape = strcmp(shape, "square") ? SINE : SQUARE;
    entity->signals[signal] = wave;
    return 1;
}

static int read_text(struct entity *entity, const char *line)
{
    char name[64];
    int length = 0;
    if (sscanf(line, "text %63s %n", name, &length) != 1 || !length)
        return 0;
    int text = find(text_names, TEXT_COUNT, name);
    if (text < 0)
        return 0;
    snprintf(entity->texts[text], TEXT_LENGTH, "%s", line + length);
    return 1;
}

static struct entity *begin(struct scenario *scenario, enum kind kind)
{
    int gpu = scenario->gpu_count - 1;
    if (kind == GPU ? gpu + 1 >= MAX_GPUS : kind != SYSTEM && gpu < 0)
        return NULL;
    if (kind == MIG && scenario->mig_count[gpu] >= MAX_MIG_DEVICES)
        return NULL;
    struct entity *entity = calloc(1, sizeof *entity);
    if (!entity)
        return NULL;
    if (kind == GPU)
        gpu = scenario->gpu_count++;
    entity->kind = kind;
    entity->gpu = gpu;
    entity->mig = kind == MIG ? scenario->mig_count[gpu]++ : WHOLE;
    if (kind == SYSTEM)
        scenario->system = entity;
    else if (kind == GPU)
        scenario->gpus[gpu] = entity;
    else if (kind == MIG)
        scenario->migs[gpu][entity->mig] = entity;
    return entity;
}

static struct scenario *read_scenario(FILE *file)
{
    struct scenario *scenario = calloc(1, sizeof *scenario);
    if (!scenario)
        return NULL;
    struct entity *entity = NULL, **entities = &scenario->entities;
    struct rule rule, **rules = &scenario->rules;
    char line[512];
    int good = 1;
    while (good && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        int kind = find(kind_names, sizeof kind_names / sizeof *kind_names, line);
        if (kind >= 0) {
            if ((entity = begin(scenario, (enum kind)kind))) {
                *entities = entity;
                entities = &entity->next;
            }
            good = entity != NULL;
        } else if (sscanf(line, "rule %d %95s %d", &rule.gpu, rule.function, &rule.code) == 3) {
            rule.next = NULL;
            if ((good = (*rules = malloc(sizeof rule)) != NULL)) {
                **rules = rule;
                rules = &(*rules)->next;
            }
        } else {
            good = entity && (read_text(entity, line) || read_signal(entity, line));
        }
    }
    if (good && scenario->system)
        return scenario;
    fprintf(stderr, "simulated driver: not a compiled scenario, at: %s\n", line);
    discard(scenario);
    return NULL;
}

// A scenario began when its file was put in place, but not before what a call was already told.
static double began(const struct stat *file)
{
    double changed = (double)file->st_mtim.tv_sec + (double)file->st_mtim.tv_nsec / 1e9;
    double now = clock_now();
    return changed < now ? fmax(changed, served) : now;
}

// Counters carry on from what they came to, so that they never step back when a scenario is replaced.
static void carry_totals(const struct scenario *old, struct scenario *new)
{
    for (struct entity *entity = new->entities; entity; entity = entity->next) {
        const struct entity *before = NULL;
        if (entity->kind == GPU && entity->gpu < old->gpu_count)
            before = old->gpus[entity->gpu];
        else if (entity->kind == MIG && entity->gpu < old->gpu_count)
            before = old->migs[entity->gpu][entity->mig];
        for (int signal = 0; before && signal < SIGNAL_COUNT; signal++)
            entity->totals[signal] = wave_total(old, before, signal, new->since);
    }
}

static void replace(struct scenario *scenario, double since)
{
    const struct wave *start = &scenario->system->signals[S_start];
    scenario->start = start->shape == ABSENT ? loaded : start->base;
    scenario->since = current ? since : scenario->start;
    if (current) {
        samples_record(current, since);
        carry_totals(current, scenario);
        if (current->references == 0)
            discard(current);
    }
    current = scenario;
}

const char *scenario_path(void)
{
    return getenv(ENVIRONMENT_VARIABLE);
}

static void look(void)
{
    double now = seconds(CLOCK_MONOTONIC);
    if (now - looked < LOOK_EVERY && looked > 0)
        return;
    looked = now;
    if (!loaded)
        loaded = clock_now();
    struct stat found;
    const char *path = scenario_path();
    if (!path || stat(path, &found) != 0)
        return;
    if (found.st_ino == seen.st_ino && found.st_size == seen.st_size &&
        found.st_mtim.tv_sec == seen.st_mtim.tv_sec && found.st_mtim.tv_nsec == seen.st_mtim.tv_nsec)
        return;
    FILE *file = fopen(path, "r");
    if (!file)
        return;
    seen = found;
    struct scenario *scenario = read_scenario(file);
    fclose(file);
    if (scenario)
        replace(scenario, began(&found));
}

const struct scenario *scenario_acquire(double *now)
{
    pthread_mutex_lock(&lock);
    look();
    struct scenario *scenario = current;
    if (scenario)
        scenario->references++;
    served = *now = clock_now();
    pthread_mutex_unlock(&lock);
    return scenario;
}

void scenario_release(const struct scenario *scenario)
{
    pthread_mutex_lock(&lock);
    struct scenario *mine = (struct scenario *)scenario;
    if (mine && --mine->references == 0 && mine != current)
        discard(mine);
    pthread_mutex_unlock(&lock);
}
