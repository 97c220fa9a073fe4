/* Stands in for NVIDIA's management library: its devices are lines of the file $NVML_DEVICES, read at each call.
 *
 *     UUID|name|state
 *
 * where state is `ok` or `lost`. Without the file there is no driver.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUCCESS 0
#define INVALID_ARGUMENT 2
#define DRIVER_NOT_LOADED 9
#define GPU_IS_LOST 15
#define MAX 64

typedef struct { char uuid[96], name[96], state[16]; } device;
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned int gpu, memory; } utilization;

static int devices(device *found) {
    const char *path = getenv("NVML_DEVICES");
    FILE *file = path ? fopen(path, "r") : NULL;
    int count = 0;
    if (!file) return -1;
    while (count < MAX && fscanf(file, " %95[^|]|%95[^|]|%15s", found[count].uuid, found[count].name, found[count].state) == 3)
        count++;
    fclose(file);
    return count;
}

static int look(void *handle, device *one) {
    device found[MAX];
    long index = (long)handle - 1;
    int count = devices(found);
    if (index < 0 || index >= count) return INVALID_ARGUMENT;
    *one = found[index];
    return strcmp(one->state, "lost") ? SUCCESS : GPU_IS_LOST;
}

int nvmlInit_v2(void) { device found[MAX]; return devices(found) < 0 ? DRIVER_NOT_LOADED : SUCCESS; }
int nvmlInitWithFlags(unsigned int flags) { (void)flags; return nvmlInit_v2(); }
int nvmlShutdown(void) { return SUCCESS; }

int nvmlDeviceGetCount_v2(unsigned int *count) {
    device found[MAX];
    int there = devices(found);
    *count = there < 0 ? 0 : (unsigned int)there;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **handle) {
    *handle = (void *)((long)index + 1);
    device one;
    return look(*handle, &one);
}

int nvmlDeviceGetUUID(void *handle, char *text, unsigned int size) {
    device one;
    int result = look(handle, &one);
    if (!result) snprintf(text, size, "%s", one.uuid);
    return result;
}

int nvmlDeviceGetName(void *handle, char *text, unsigned int size) {
    device one;
    int result = look(handle, &one);
    if (!result) snprintf(text, size, "%s", one.name);
    return result;
}

int nvmlDeviceGetMemoryInfo(void *handle, memory *told) {
    device one;
    int result = look(handle, &one);
    told->total = 24000000000ULL; told->used = 1000000000ULL; told->free = told->total - told->used;
    return result;
}

int nvmlDeviceGetUtilizationRates(void *handle, utilization *told) {
    device one;
    told->gpu = 42; told->memory = 7;
    return look(handle, &one);
}

const char *nvmlErrorString(int result) {
    switch (result) {
        case SUCCESS: return "Success";
        case DRIVER_NOT_LOADED: return "Driver Not Loaded";
        case GPU_IS_LOST: return "GPU is lost";
        default: return "Invalid Argument";
    }
}
