// A CUDA driver for tests, made of the emulated device's kernels: with it the code for GPUs runs where there is none.
//
// Work is done as late as a GPU may do it: a stream's commands wait until the host or an event needs them, so a
// missing event or a host buffer that is written too early shows. Handles, contexts and captures are checked.
//
// FAKE_CUDA_KERNELS: the emulated device's library. FAKE_CUDA_ENTRIES: a file with a line "name threads sizes..." per
// kernel. FAKE_CUDA_VERSION: what cuDriverGetVersion answers. FAKE_CUDA_DEVICES: how many devices. FAKE_CUDA_BYTES: the
// memory of each. FAKE_CUDA_FAULT: a kernel that faults. FAKE_CUDA_PEERS=0: no device reaches another's memory.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

enum Result {
    OK = 0,
    INVALID_VALUE = 1,
    NO_MEMORY = 2,
    NOT_READY = 3,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    CAPTURE_INVALID = 901,
    CAPTURE_UNJOINED = 904,
    CAPTURE_ISOLATION = 905
};

struct Event {
    uint64_t issued = 0, done = 0;
    struct Capture* capture = nullptr;
    std::map<struct Stream*, uint64_t> clock;
};
struct Command {
    std::function<int()> run;
    Event* waits = nullptr;
    uint64_t ticket = 0;
};
struct Stream {
    int device;
    std::deque<Command> pending;
    struct Capture* capture = nullptr;
};
struct Capture {
    Stream* origin;
    std::vector<std::pair<Stream*, std::deque<Command>>> queues;
    std::map<Stream*, std::map<Stream*, uint64_t>> clocks;
    std::vector<Event*> events;
};
struct Kernel {
    const void* handle;
    unsigned threads;
    std::vector<size_t> sizes;
    std::string name;
};
struct Context {
    int device, users = 0;
};

static std::recursive_mutex mutex;
static std::set<Stream*> streams;
static std::set<Event*> events;
static std::set<Capture*> graphs;
static std::map<uint64_t, std::pair<size_t, int>> memory;  // start: bytes, device; pinned host memory is device -1
static std::map<std::string, Kernel> kernels;
static std::vector<Context> contexts;
static thread_local Context* current = nullptr;
static int failure = OK;

using Launch = int (*)(const void*, const unsigned*, const unsigned*, size_t, void**, uint64_t, uint64_t, int, uint64_t,
                       char*, size_t);
static Launch emu_launch;

static const char* setting(const char* name, const char* otherwise) {
    const char* value = getenv(name);
    return value ? value : otherwise;
}

// Runs the first command of a queue; false when it has to wait for an event.
static bool step(std::deque<Command>& queue) {
    Command& command = queue.front();
    if (command.waits && command.waits->done < command.ticket) return false;
    if (command.run) {
        const int result = command.run();
        if (result != OK) failure = result;
    }
    queue.pop_front();
    return true;
}

// Does what a stream needs, and nothing else.
static int finish(Stream* stream) {
    while (!stream->pending.empty()) {
        if (step(stream->pending)) continue;
        Event* needed = stream->pending.front().waits;
        bool moved = false;
        for (Stream* other : streams) {
            if (other == stream || needed->done >= stream->pending.front().ticket) continue;
            while (!other->pending.empty() && needed->done < stream->pending.front().ticket && step(other->pending))
                moved = true;
        }
        if (!moved && needed->done < stream->pending.front().ticket) {
            fputs("fake cuda: streams wait for each other\n", stderr);
            abort();
        }
    }
    return failure;
}

// The last queue first: as far from the order of issue as the events allow.
static int replay(const Capture& graph) {
    auto queues = graph.queues;
    for (Event* event : graph.events) event->done = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (size_t i = queues.size(); i-- > 0;)
            while (!queues[i].second.empty() && step(queues[i].second)) moved = true;
    }
    for (auto& queue : queues)
        if (!queue.second.empty()) return CAPTURE_INVALID;
    return failure;
}

static int issue(void* handle, Command command) {
    Stream* stream = static_cast<Stream*>(handle);
    if (!current) return INVALID_CONTEXT;
    if (!streams.count(stream)) return INVALID_HANDLE;
    if (failure) return failure;
    if (!stream->capture) {
        stream->pending.push_back(std::move(command));
        return OK;
    }
    for (auto& queue : stream->capture->queues)
        if (queue.first == stream) {
            queue.second.push_back(std::move(command));
            ++stream->capture->clocks[stream][stream];
            return OK;
        }
    return CAPTURE_INVALID;
}

static const std::pair<const uint64_t, std::pair<size_t, int>>* holder(uint64_t address, size_t bytes) {
    auto at = memory.upper_bound(address);
    if (at == memory.begin()) return nullptr;
    --at;
    return address + bytes <= at->first + at->second.first ? &*at : nullptr;
}
static bool on_device(uint64_t address, size_t bytes) {
    const auto* found = holder(address, bytes);
    return bytes == 0 || (found && found->second.second >= 0);
}
static bool peers() { return *setting("FAKE_CUDA_PEERS", "1") != '0'; }
// A stream reaches pinned memory, and the memory of its own device and of peers.
static bool reaches(const void* stream, uint64_t address, size_t bytes) {
    const auto* found = holder(address, bytes);
    const int device = static_cast<const Stream*>(stream)->device;
    return bytes == 0 || (found && (found->second.second < 0 || found->second.second == device || peers()));
}

static void load_kernels() {
    if (!kernels.empty()) return;
    void* library = dlopen(setting("FAKE_CUDA_KERNELS", ""), RTLD_NOW);
    if (!library) {
        fprintf(stderr, "fake cuda: %s\n", dlerror());
        abort();
    }
    const auto find = reinterpret_cast<const void* (*)(const char*)>(dlsym(library, "emu_kernel"));
    emu_launch = reinterpret_cast<Launch>(dlsym(library, "emu_launch"));
    std::ifstream file(setting("FAKE_CUDA_ENTRIES", ""));
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        Kernel kernel;
        words >> kernel.name >> kernel.threads;
        for (size_t size; words >> size;) kernel.sizes.push_back(size);
        kernel.handle = find(kernel.name.c_str());
        kernels[kernel.name] = kernel;
    }
}

#define API extern "C" int
#define LOCK std::lock_guard<std::recursive_mutex> guard(mutex)

API cuDriverGetVersion(int* version) {
    *version = atoi(setting("FAKE_CUDA_VERSION", "13000"));
    return OK;
}
API cuInit(unsigned) {
    contexts.resize(atoi(setting("FAKE_CUDA_DEVICES", "2")));
    for (size_t i = 0; i < contexts.size(); ++i) contexts[i].device = int(i);
    return OK;
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
    snprintf(name, bytes, "fake GPU %d", device);
    return OK;
}
API cuDevicePrimaryCtxRetain(Context** context, int device) {
    LOCK;
    *context = &contexts[device];
    ++contexts[device].users;
    return OK;
}
API cuDevicePrimaryCtxRelease_v2(int device) {
    LOCK;
    return --contexts[device].users < 0 ? INVALID_CONTEXT : OK;
}
API cuCtxSetCurrent(Context* context) {
    current = context;
    return OK;
}
API cuCtxSynchronize() {
    LOCK;
    for (Stream* stream : streams) finish(stream);
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
    for (Stream* stream : streams) finish(stream);
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
API cuEventCreate(Event** event, unsigned) {
    LOCK;
    *event = new Event;
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
    return start->done && end->done ? OK : NOT_READY;
}
API cuEventElapsedTime(float* milliseconds, Event* start, Event* end) {
    return cuEventElapsedTime_v2(milliseconds, start, end);
}
API cuEventSynchronize(Event* event) {
    LOCK;
    for (Stream* stream : streams)
        while (event->done < event->issued && !stream->pending.empty() && finish(stream) == OK) {}
    return failure;
}
API cuEventRecord(Event* event, Stream* stream) {
    LOCK;
    if (!events.count(event)) return INVALID_HANDLE;
    const uint64_t ticket = ++event->issued;
    event->capture = stream->capture;
    const int result = issue(stream, {[=] {
                                 event->done = ticket;
                                 return OK;
                             }});
    if (stream->capture) {
        event->clock = stream->capture->clocks[stream];
        stream->capture->events.push_back(event);
    }
    return result;
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

static int copy(uint64_t to, uint64_t from, size_t bytes, void* stream) {
    return issue(stream, {[=] {
                     memmove(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
                     return OK;
                 }});
}
API cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
    LOCK;
    const uint64_t at = reinterpret_cast<uint64_t>(from);
    if (!on_device(to, bytes)) return INVALID_VALUE;
    if (holder(at, bytes)) return copy(to, at, bytes, stream);
    const std::string kept(static_cast<const char*>(from), bytes);  // pageable memory is taken before the call returns
    return issue(stream, {[=] {
                     memcpy(reinterpret_cast<void*>(to), kept.data(), bytes);
                     return OK;
                 }});
}
API cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, Stream* stream) {
    LOCK;
    if (!on_device(from, bytes)) return INVALID_VALUE;
    const int result = copy(reinterpret_cast<uint64_t>(to), from, bytes, stream);
    return result || holder(reinterpret_cast<uint64_t>(to), bytes) ? result : cuStreamSynchronize(stream);
}
API cuMemcpyAsync(uint64_t to, uint64_t from, size_t bytes, void* stream) {
    LOCK;
    const bool near = reaches(stream, to, bytes) && reaches(stream, from, bytes);
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
    if (c.width == 0 || c.height == 0) return OK;
    if (c.from_kind != 4 || c.to_kind != 4 || c.width > c.from_pitch || c.width > c.to_pitch) return INVALID_VALUE;
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
    if (!on_device(to, bytes)) return INVALID_VALUE;
    return issue(stream, {[=] { return memset(reinterpret_cast<void*>(to), byte, bytes), OK; }});
}

API cuLaunchKernel(const Kernel* kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** params, void**) {
    LOCK;
    if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || bx != kernel->threads || by != 1 || bz != 1)
        return INVALID_VALUE;
    std::vector<uint64_t> values(kernel->sizes.size());
    for (size_t i = 0; i < values.size(); ++i) {
        memcpy(&values[i], params[i], kernel->sizes[i]);
        if (kernel->sizes[i] == 8 && holder(values[i], 1) && !reaches(stream, values[i], 1)) return INVALID_VALUE;
    }
    return issue(stream, {[=]() mutable -> int {
                     if (kernel->name == setting("FAKE_CUDA_FAULT", "")) return ILLEGAL_ADDRESS;
                     std::vector<void*> args;
                     for (uint64_t& value : values) args.push_back(&value);
                     const unsigned grid[] = {gx, gy, gz}, size[] = {bx, 1, 1};
                     char error[1024];
                     if (emu_launch(kernel->handle, grid, size, shared, args.data(), 0, uint64_t(gx) * gy * gz, 1, 0,
                                    error, sizeof error) == 0)
                         return OK;
                     fprintf(stderr, "fake cuda: %s: %s\n", kernel->name.c_str(), error);
                     return ILLEGAL_ADDRESS;
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
    bool joined = true;
    for (auto& [member, clock] : capture->clocks) joined &= clock[member] <= capture->clocks[stream][member];
    for (auto& queue : capture->queues) queue.first->capture = nullptr;
    for (Event* event : capture->events) event->capture = nullptr;
    *graph = capture;
    return joined ? OK : CAPTURE_UNJOINED;
}
API cuGraphInstantiateWithFlags(Capture** made, Capture* graph, unsigned long long) {
    LOCK;
    *made = new Capture(*graph);
    graphs.insert(*made);
    return OK;
}
API cuGraphDestroy(Capture* graph) { return delete graph, OK; }
API cuGraphExecDestroy(Capture* graph) {
    LOCK;
    if (!graphs.erase(graph)) return INVALID_HANDLE;
    delete graph;
    return OK;
}
API cuGraphLaunch(Capture* graph, Stream* stream) {
    LOCK;
    return graphs.count(graph) && !stream->capture ? issue(stream, {[=] { return replay(*graph); }}) : INVALID_HANDLE;
}
