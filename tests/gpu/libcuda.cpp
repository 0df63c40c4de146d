// A CUDA driver for tests, made of the emulated device's kernels: with it the code for GPUs runs where there is none.
//
// Work is done as late as a GPU may do it: a stream's commands wait until the host or an event needs them, so a
// missing event or a host buffer that is written too early shows. Handles, contexts and captures are checked.
//
// FAKE_CUDA_VERSION: what cuDriverGetVersion answers. FAKE_CUDA_DEVICES: how many devices. FAKE_CUDA_PTX and
// FAKE_CUDA_BINARY: the architectures that kernels were compiled for. FAKE_CUDA_NAME: what each device calls
// itself, "fake GPU %d". FAKE_CUDA_CAPTURE: no capture succeeds. FAKE_CUDA_FIRST: the place of this process among those
// of its machine, where the launcher does not give it; each has 16 GPUs of its own, unless FAKE_CUDA_SHARED=1. Others
// are in world.h.
#include "world.h"

#define API extern "C" int
#define LOCK Lock guard

API cuDriverGetVersion(int* version) {
    *version = atoi(setting("FAKE_CUDA_VERSION", "13000"));
    return OK;
}
API cuInit(unsigned) {
    contexts.resize(atoi(setting("FAKE_CUDA_DEVICES", "2")));
    for (size_t i = 0; i < contexts.size(); ++i) contexts[i].device = int(i);
    return contexts.empty() ? 100 : OK;  // NO_DEVICE
}
API cuDeviceGetCount(int* count) { return *count = int(contexts.size()), OK; }
API cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return ordinal < int(contexts.size()) ? OK : 101;
}
API cuDeviceGetAttribute(int* value, int attribute, int) {
    *value = attribute == 75 ? 9 : 0;
    return OK;
}
API cuDeviceGetName(char* name, int bytes, int device) {
    snprintf(name, bytes, setting("FAKE_CUDA_NAME", "fake GPU %d"), device);
    return OK;
}
// GPUs of different processes are different ones by default.
API cuDeviceGetPCIBusId(char* to, int bytes, int device) {
    static const char* const places[] = {"FAKE_CUDA_FIRST", "LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK",
                                         "MPI_LOCALRANKID", "SLURM_LOCALID"};
    if (device < 0 || device >= int(contexts.size())) return 101;
    int number = device;
    for (const char* name : places)
        if (getenv(name)) {
            number += 16 * atoi(getenv(name));
            break;
        }
    if (*setting("FAKE_CUDA_SHARED", "0") == '1') number = device;
    return snprintf(to, bytes, "0000:%02x:00.0", number) < bytes ? OK : INVALID_VALUE;
}
API cuDevicePrimaryCtxRetain(Context** context, int device) {
    LOCK;
    *context = &contexts[device];
    // CUDA counts users, but a process of ours loads the kernels of a device once.
    return contexts[device].users++ ? UNKNOWN : OK;
}
API cuDevicePrimaryCtxRelease_v2(int device) {
    LOCK;
    return --contexts[device].users < 0 ? INVALID_CONTEXT : OK;
}
API cuCtxSetCurrent(Context* context) {
    current = context;
    return OK;
}
API cuCtxGetCurrent(Context** context) { return *context = current, OK; }
API cuCtxGetDevice(int* device) {
    if (!current) return INVALID_CONTEXT;
    *device = current->device;
    return OK;
}
API cuCtxSynchronize() {
    LOCK;
    waits();
    finish_all();
    return failure;
}
API cuModuleLoadData(void** module, const void*) {
    LOCK;
    load_kernels();
    *module = new int(0);
    return current ? OK : INVALID_CONTEXT;
}
API cuModuleUnload(void* module) {
    delete static_cast<int*>(module);
    return OK;
}
API cuModuleGetFunction(const Kernel** function, void*, const char* name) {
    LOCK;
    const auto found = kernels.find(name);
    if (found == kernels.end() || !found->second.handle) return NOT_FOUND;
    *function = &found->second;
    return OK;
}
API cuFuncGetAttribute(int* value, int attribute, const Kernel*) {
    if (attribute != 5 && attribute != 6) return INVALID_VALUE;
    *value = atoi(attribute == 5 ? setting("FAKE_CUDA_PTX", "90") : setting("FAKE_CUDA_BINARY", "90"));
    return OK;
}
// Attribute 8 is the dynamic shared memory that a block may use; an H100 has 227 KiB.
API cuFuncSetAttribute(const Kernel* kernel, int attribute, int value) {
    if (!current || attribute != 8 || value < 0 || value > 227 << 10) return INVALID_VALUE;
    kernel->shared = value;
    return OK;
}

static size_t used(int device) {
    size_t bytes = 0;
    for (const auto& one : memory) bytes += one.second.second == device ? one.second.first : 0;
    return bytes;
}
static size_t total() { return strtoull(setting("FAKE_CUDA_BYTES", "1073741824"), nullptr, 10); }
API cuMemGetInfo_v2(size_t* free, size_t* all) {
    LOCK;
    if (!current) return INVALID_CONTEXT;
    *all = total();
    *free = total() - used(current->device);
    return OK;
}
static int allocate(uint64_t* address, size_t bytes, int device) {
    void* fresh = nullptr;
    if (posix_memalign(&fresh, 256, bytes) != 0) return NO_MEMORY;
    memset(fresh, 0xff, bytes);
    *address = reinterpret_cast<uint64_t>(fresh);
    memory[*address] = {bytes, device};
    return OK;
}
API cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    LOCK;
    if (!current) return INVALID_CONTEXT;
    if (bytes == 0) return INVALID_VALUE;
    if (used(current->device) + bytes > total()) return NO_MEMORY;
    return allocate(address, bytes, current->device);
}
static int release(uint64_t address, bool host) {
    const auto found = memory.find(address);
    if (found == memory.end() || (found->second.second < 0) != host) return INVALID_VALUE;
    waits();
    finish_all();
    free(reinterpret_cast<void*>(address));
    memory.erase(found);
    return OK;
}
API cuMemFree_v2(uint64_t address) {
    LOCK;
    return release(address, false);
}
API cuMemHostAlloc(void** address, size_t bytes, unsigned) {
    LOCK;
    return allocate(reinterpret_cast<uint64_t*>(address), bytes, -1);
}
API cuMemFreeHost(void* address) {
    LOCK;
    return release(reinterpret_cast<uint64_t>(address), true);
}
API cuDeviceCanAccessPeer(int* able, int, int) { return *able = peers(), OK; }
API cuCtxEnablePeerAccess(Context*, unsigned) { return !current ? INVALID_CONTEXT : peers() ? OK : 217; }

API cuStreamCreate(Stream** stream, unsigned) {
    LOCK;
    if (!current) return INVALID_CONTEXT;
    *stream = new Stream{current->device, {}, nullptr};
    streams.insert(*stream);
    return OK;
}
API cuStreamDestroy_v2(Stream* stream) {
    LOCK;
    if (!streams.erase(stream)) return INVALID_HANDLE;
    delete stream;
    return OK;
}
API cuStreamSynchronize(Stream* stream) {
    LOCK;
    if (!streams.count(stream)) return INVALID_HANDLE;
    return stream->capture ? CAPTURE_INVALID : finish(stream);
}
API cuStreamQuery(Stream* stream) {
    LOCK;
    if (!streams.count(stream)) return INVALID_HANDLE;
    if (stream->capture) return CAPTURE_INVALID;
    const int result = finish(stream, false);
    return hanging ? NOT_READY : result;
}
API cuEventCreate(Event** event, unsigned flags) {
    LOCK;
    if (flags & ~2u) return INVALID_VALUE;
    *event = new Event;
    (*event)->timed = !(flags & 2);
    events.insert(*event);
    return OK;
}
API cuEventDestroy_v2(Event* event) {
    LOCK;
    if (!events.erase(event)) return INVALID_HANDLE;
    delete event;
    return OK;
}
API cuEventElapsedTime_v2(float* milliseconds, Event* start, Event* end) {
    LOCK;
    *milliseconds = 1.5f;
    if (!start->timed || !end->timed) return INVALID_HANDLE;
    return start->done && end->done ? OK : NOT_READY;
}
API cuEventElapsedTime(float* milliseconds, Event* a, Event* b) { return cuEventElapsedTime_v2(milliseconds, a, b); }
API cuEventSynchronize(Event* event) {
    LOCK;
    return settle(event, true);
}
API cuEventQuery(Event* event) {
    LOCK;
    const int result = settle(event, false);
    return hanging ? NOT_READY : result;
}
API cuEventRecord(Event* event, Stream* stream) {
    LOCK;
    if (!events.count(event)) return INVALID_HANDLE;
    const uint64_t ticket = ++event->issued;
    event->capture = stream->capture;
    const int result = issue(stream, {nullptr, nullptr, ticket, event});
    if (stream->capture) {
        event->clock = stream->capture->clocks[stream];
        stream->capture->events.push_back(event);
    }
    return result;
}
// An external event is a node of the graph: it happens whenever the graph comes to it, and orders nothing in the capture.
API cuEventRecordWithFlags(Event* event, Stream* stream, unsigned flags) {
    LOCK;
    if (flags == 0) return cuEventRecord(event, stream);
    if (!events.count(event)) return INVALID_HANDLE;
    if (flags != 1 || !stream->capture) return INVALID_VALUE;
    return issue(stream, {[=] {
                     event->done = ++event->issued;
                     return OK;
                 }});
}
API cuStreamIsCapturing(Stream* stream, int* status) {
    LOCK;
    if (!streams.count(stream)) return INVALID_HANDLE;
    *status = stream->capture ? 1 : 0;
    return OK;
}
API cuStreamWaitEvent(Stream* stream, Event* event, unsigned) {
    LOCK;
    if (!events.count(event)) return INVALID_HANDLE;
    if (event->issued == 0) return OK;  // what a GPU does, too
    if (stream->capture && stream->capture != event->capture) return CAPTURE_ISOLATION;
    if (event->capture && !stream->capture) {
        stream->capture = event->capture;
        stream->capture->queues.push_back({stream, {}});
    }
    if (stream->capture)
        for (auto& [other, count] : event->clock) {
            uint64_t& known = stream->capture->clocks[stream][other];
            known = std::max(known, count);
        }
    return issue(stream, {nullptr, event, event->issued});
}

// Copies and fills of nothing are refused, as a driver may do.
static int copy(uint64_t to, uint64_t from, size_t bytes, void* stream) {
    return issue(stream, {[=] {
                     memmove(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
                     return OK;
                 }});
}
API cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
    LOCK;
    const uint64_t at = reinterpret_cast<uint64_t>(from);
    if (!bytes || !on_device(to, bytes)) return INVALID_VALUE;
    if (holder(at, bytes)) return copy(to, at, bytes, stream);
    const std::string kept(static_cast<const char*>(from), bytes);  // pageable memory is taken before the call returns
    return issue(stream, {[=] {
                     memcpy(reinterpret_cast<void*>(to), kept.data(), bytes);
                     return OK;
                 }});
}
API cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, Stream* stream) {
    LOCK;
    if (!bytes || !on_device(from, bytes)) return INVALID_VALUE;
    const int result = copy(reinterpret_cast<uint64_t>(to), from, bytes, stream);
    return result || holder(reinterpret_cast<uint64_t>(to), bytes) ? result : cuStreamSynchronize(stream);
}
API cuMemcpyAsync(uint64_t to, uint64_t from, size_t bytes, void* stream) {
    LOCK;
    const bool near = bytes && reaches(stream, to, bytes) && reaches(stream, from, bytes);
    return near ? copy(to, from, bytes, stream) : INVALID_VALUE;
}
struct Copy2d {
    size_t from_x, from_y;
    int from_kind;
    const void* from_host;
    uint64_t from;
    void* from_array;
    size_t from_pitch;
    size_t to_x, to_y;
    int to_kind;
    void* to_host;
    uint64_t to;
    void* to_array;
    size_t to_pitch, width, height;
};
API cuMemcpy2DAsync_v2(const Copy2d* plan, void* stream) {
    LOCK;
    const Copy2d c = *plan;
    if (c.width == 0 || c.height == 0) return INVALID_VALUE;
    if (c.from_kind != 4 || c.to_kind != 4 || c.width > c.from_pitch || c.width > c.to_pitch) return INVALID_VALUE;
    // CU_DEVICE_ATTRIBUTE_MAX_PITCH
    if (c.from_pitch > 0x7fffffff || c.to_pitch > 0x7fffffff) return INVALID_VALUE;
    if (!reaches(stream, c.from, (c.height - 1) * c.from_pitch + c.width) ||
        !reaches(stream, c.to, (c.height - 1) * c.to_pitch + c.width))
        return INVALID_VALUE;
    return issue(stream, {[=] {
                     for (size_t row = 0; row < c.height; ++row)
                         memmove(reinterpret_cast<void*>(c.to + row * c.to_pitch),
                                 reinterpret_cast<void*>(c.from + row * c.from_pitch), c.width);
                     return OK;
                 }});
}
API cuMemsetD8Async(uint64_t to, unsigned char byte, size_t bytes, void* stream) {
    LOCK;
    if (!bytes || !on_device(to, bytes)) return INVALID_VALUE;
    return issue(stream, {[=] { return memset(reinterpret_cast<void*>(to), byte, bytes), OK; }});
}

API cuLaunchKernel(const Kernel* kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** params, void**) {
    LOCK;
    if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || bx != kernel->threads || by != 1 || bz != 1)
        return INVALID_VALUE;
    if (shared > kernel->shared) return INVALID_VALUE;
    std::vector<Value> values(kernel->sizes.size());
    for (size_t i = 0; i < values.size(); ++i) {
        values[i].resize((kernel->sizes[i] + 7) / 8);
        memcpy(values[i].data(), params[i], kernel->sizes[i]);
        const uint64_t address = values[i][0];
        if (kernel->sizes[i] == 8 && holder(address, 1) && !reaches(stream, address, 1)) return INVALID_VALUE;
    }
    return issue(stream, {[=] {
                     const unsigned grid[] = {gx, gy, gz};
                     return run_kernel(*kernel, grid, shared, values);
                 }});
}
API cuStreamBeginCapture_v2(Stream* stream, int) {
    LOCK;
    if (!streams.count(stream) || stream->capture) return CAPTURE_INVALID;
    stream->capture = new Capture{stream, {{stream, {}}}, {}, {}};
    return OK;
}
API cuStreamEndCapture(Stream* stream, Capture** graph) {
    LOCK;
    Capture* capture = stream->capture;
    if (!capture || capture->origin != stream) return CAPTURE_INVALID;
    bool joined = !*setting("FAKE_CUDA_CAPTURE", "");
    for (auto& [member, clock] : capture->clocks) joined &= clock[member] <= capture->clocks[stream][member];
    for (auto& queue : capture->queues) queue.first->capture = nullptr;
    for (Event* event : capture->events) event->capture = nullptr;
    *graph = capture;
    return joined ? OK : CAPTURE_UNJOINED;
}
API cuGraphInstantiateWithFlags(Capture** made, Capture* graph, unsigned long long) {
    LOCK;
    const auto copy = std::make_shared<Capture>(*graph);
    graphs[*made = copy.get()] = copy;
    return OK;
}
API cuGraphDestroy(Capture* graph) { return delete graph, OK; }
// A graph that still runs is kept until it has ended.
API cuGraphExecDestroy(Capture* graph) {
    LOCK;
    return graphs.erase(graph) ? OK : INVALID_HANDLE;
}
API cuGraphLaunch(Capture* graph, Stream* stream) {
    LOCK;
    const auto found = graphs.find(graph);
    return found != graphs.end() && !stream->capture ? issue(stream, replay(found->second)) : INVALID_HANDLE;
}
#include "host_work.h"
