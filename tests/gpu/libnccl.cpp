// An NCCL for tests: the calls of nccl.h that move data, between the stand-in devices (libcuda.cpp) of processes of one
// machine. Sums are formed in the order of a ring. What breaks the contract of nccl.h ends the process, or is an
// error where it is one of the real library; ranks that call different things are told, where the real library hangs.
//
// In faults, RANK is that of a process by its launcher, and NUMBER counts, from 1, the operations that the process's
// streams come to; a group is one operation.
// FAKE_NCCL_HANG=RANK:NUMBER: the rank takes no part in it. FAKE_NCCL_ASYNC=RANK:NUMBER: that, and an asynchronous
// error. FAKE_NCCL_LATE=RANK:NUMBER:MILLISECONDS: it takes part later. FAKE_NCCL_CALL=RANK:NUMBER: the call of that
// number fails. FAKE_NCCL_INIT=RANK:hang or RANK:fail: of ncclCommInitRank. FAKE_NCCL_ABORT=hang: no communicator can
// be aborted or destroyed. FAKE_NCCL_VERSION: what ncclGetVersion answers. FAKE_NCCL_GPU: which GPU this process has,
// instead of the address on its bus. FAKE_NCCL_LOG: each process adds a line "name count type ranks rank captured" (or
// "plain") per call to a file of that name with its number.
#include "nccl_comm.h"

struct UniqueId {
    uint64_t magic;
    char place[56];
    uint64_t check[8];  // so that a part of an id is not enough
};
static_assert(sizeof(UniqueId) == 128);
struct Config {
    size_t size;
    unsigned magic, version;
    int blocking;
};
enum { NO_VALUE = int(0x80000000) };

// Threads of the library outlive its objects.
static auto& living = *new std::map<void*, std::shared_ptr<Comm>>;
static auto& living_lock = *new std::mutex;

static std::shared_ptr<Comm> alive(void* handle) {
    std::lock_guard guard(living_lock);
    const auto found = living.find(handle);
    MUST(found != living.end() && "a communicator that is alive");
    return found->second;
}
static int refuse(int code, const std::string& text) { return say(text), code; }

// What a thread calls between ncclGroupStart and ncclGroupEnd.
struct Call {
    std::shared_ptr<Comm> comm;
    Use use;
    void* stream;
    const void* capture;
};
struct Group {
    int depth = 0, error = SUCCESS;
    std::vector<Call> calls;
    std::vector<std::pair<void**, std::shared_ptr<Comm>>> starts;
    ~Group() { MUST(depth == 0 && "a group that ended before its thread"); }
};
static thread_local Group group;

API ncclGetVersion(int* version) {
    if (!version) return refuse(INVALID_ARGUMENT, "GetVersion : version argument is NULL");
    *version = atoi(setting("FAKE_NCCL_VERSION", "22707"));
    return SUCCESS;
}
extern "C" const char* ncclGetErrorString(int result) {
    switch (result) {
    case SUCCESS: return "no error";
    case UNHANDLED_CUDA_ERROR: return "unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
    case SYSTEM_ERROR: return "unhandled system error (run with NCCL_DEBUG=INFO for details)";
    case INTERNAL_ERROR: return "internal error - please report this issue to the NCCL developers";
    case INVALID_ARGUMENT: return "invalid argument (run with NCCL_DEBUG=WARN for details)";
    case INVALID_USAGE: return "invalid usage (run with NCCL_DEBUG=WARN for details)";
    case REMOTE_ERROR: return "remote process exited or there was a network error";
    case IN_PROGRESS: return "NCCL operation in progress";
    }
    return "unknown result code";
}
extern "C" const char* ncclGetLastError(void*) { return last_error; }

API ncclGetUniqueId(UniqueId* id) {
    if (!id) return refuse(INVALID_ARGUMENT, "GetUniqueId : out argument is NULL");
    static std::atomic<uint64_t> count;
    uint64_t random = Clock::now().time_since_epoch().count() ^ ++count << 48;
    FILE* source = fopen("/dev/urandom", "rb");
    if (source) (void)!fread(&random, sizeof random, 1, source), fclose(source);
    *id = {random, "", {}};
    snprintf(id->place, sizeof id->place, "fake-nccl.%d.%llx", getpid(), (unsigned long long)random);
    for (int i = 0; i < 8; ++i) id->check[i] = random * (i + 3);
    sockaddr_un at;
    const socklen_t bytes = address_of(id->place, at);
    const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (bind(listener, reinterpret_cast<sockaddr*>(&at), bytes) != 0 || listen(listener, 1024) != 0)
        return refuse(SYSTEM_ERROR, "a socket cannot be opened");
    in_background([=] { Hub(listener, random).serve(); });
    return SUCCESS;
}

// Waits until communicators can be used, or their start has failed.
static int started(std::vector<std::pair<void**, std::shared_ptr<Comm>>> starts) {
    int result = SUCCESS;
    for (auto& [handle, comm] : starts) {
        std::unique_lock guard(comm->lock);
        if (!comm->blocking) {
            if (!result) result = IN_PROGRESS;
            continue;
        }
        comm->changed.wait(guard, [&] { return comm->state != IN_PROGRESS; });
        if (comm->state == SUCCESS) continue;
        result = comm->state;
        comm->aborted = true;
        comm->poke();
        std::lock_guard other(living_lock);
        living.erase(comm.get());
        *handle = nullptr;
    }
    return result;
}
static int start(void** to, int size, const UniqueId& id, int rank, const Config* config) {
    static const auto context_of = driver<int (*)(void**)>("cuCtxGetCurrent");
    static const auto device_of = driver<int (*)(int*)>("cuCtxGetDevice");
    static const auto bus_of = driver<int (*)(char*, int, int)>("cuDeviceGetPCIBusId");
    if (!to || size < 1 || rank < 0 || rank >= size)
        return refuse(INVALID_ARGUMENT,
                      "Invalid rank requested : " + std::to_string(rank) + "/" + std::to_string(size));
    if (config && (config->magic != 0xcafebeef || config->size < sizeof *config))
        return refuse(INVALID_ARGUMENT, "ncclConfig_t argument not initialized via NCCL_CONFIG_INITIALIZER");
    if (config && config->blocking != NO_VALUE && config->blocking != 0 && config->blocking != 1)
        return refuse(INVALID_ARGUMENT, "Invalid config blocking attribute value " + std::to_string(config->blocking));
    for (int i = 0; i < 8; ++i) MUST(id.check[i] == id.magic * (i + 3) && "an id of ncclGetUniqueId, whole");
    MUST(group.calls.empty() && "communicators started in a group of their own");
    const auto comm = std::make_shared<Comm>();
    MUST(context_of(&comm->context) == 0 && device_of(&comm->device) == 0);
    comm->rank = rank;
    comm->size = size;
    comm->blocking = !config || config->blocking != 0;
    comm->magic = id.magic;
    comm->place = id.place;
    comm->hello.size = size;
    MUST(bus_of(comm->hello.bus, sizeof comm->hello.bus, comm->device) == 0);
    char host[128] = "";
    gethostname(host, sizeof host - 1);
    snprintf(comm->hello.gpu, sizeof comm->hello.gpu, "%s/%s", host, setting("FAKE_NCCL_GPU", comm->hello.bus));
    {
        std::lock_guard guard(living_lock);
        living[*to = comm.get()] = comm;
    }
    const std::string planned = fault("FAKE_NCCL_INIT");
    if (planned == "fail") {
        std::lock_guard guard(comm->lock);
        comm->fail(SYSTEM_ERROR, "stand-in failure");
        comm->closed = true;
    } else if (planned != "hang") {
        in_background([=] { serve(comm); });
    }
    if (group.depth == 0) return started({{to, comm}});
    group.starts.push_back({to, comm});
    return SUCCESS;
}
// An error of a call is one of its group, too.
static int in_group(int result) {
    if (group.depth && result != SUCCESS && result != IN_PROGRESS && !group.error) group.error = result;
    return result;
}
API ncclCommInitRankConfig(void** comm, int size, UniqueId id, int rank, const Config* config) {
    return in_group(start(comm, size, id, rank, config));
}
API ncclCommInitRank(void** comm, int size, UniqueId id, int rank) {
    return in_group(start(comm, size, id, rank, nullptr));
}

// Whether a communicator can be used now.
static int usable(Comm& comm) {
    std::lock_guard guard(comm.lock);
    if (comm.state == SUCCESS && !comm.unasked && !comm.finalized) return SUCCESS;
    const int state = comm.state;
    if (state != SUCCESS && state != IN_PROGRESS) return state;
    return refuse(INVALID_ARGUMENT, "Attempt to use communicator before the previous operation returned ncclSuccess");
}
static int answer(Comm& comm) {
    comm.unasked = !comm.blocking;
    return comm.blocking ? SUCCESS : IN_PROGRESS;
}
API ncclCommGetAsyncError(void* handle, int* error) {
    if (!handle || !error) return refuse(INVALID_ARGUMENT, "ncclGetAsyncError : an argument is NULL");
    const auto comm = alive(handle);
    std::lock_guard guard(comm->lock);
    *error = comm->state;
    comm->unasked = false;
    return SUCCESS;
}
static int ask(void* handle, int* to, int Comm::*field) {
    if (!handle || !to) return refuse(INVALID_ARGUMENT, "an argument is NULL");
    const auto comm = alive(handle);
    const int result = usable(*comm);
    if (!result) *to = (*comm).*field;
    return result;
}
API ncclCommCount(void* comm, int* to) { return ask(comm, to, &Comm::size); }
API ncclCommUserRank(void* comm, int* to) { return ask(comm, to, &Comm::rank); }
API ncclCommCuDevice(void* comm, int* to) { return ask(comm, to, &Comm::device); }

// The operations outside of graphs have been issued to streams, and have to end. A graph keeps its communicators: the
// real library waits for ever when it is destroyed later by the same thread.
static void drain(Comm& comm, const char* name) {
    static const auto wait = driver<int (*)(void*)>("cuEventSynchronize");
    std::unique_lock guard(comm.lock);
    const int state = comm.state;
    const bool aborted = comm.aborted, waits = comm.events[0] && state != IN_PROGRESS;
    if (comm.active && !aborted && state != SUCCESS)
        fprintf(stderr, "fake nccl: %s waits for an operation that cannot end\n", name);
    guard.unlock();
    if (!aborted && waits) wait(comm.events[0]);
    guard.lock();
    const auto free = [&] { return comm.captured == 0 && (aborted || !comm.active); };
    if (comm.changed.wait_for(guard, std::chrono::seconds(1), free)) return;
    if (comm.captured) fprintf(stderr, "fake nccl: %s waits for graphs that use the communicator\n", name);
    comm.changed.wait(guard, free);
}
API ncclCommFinalize(void* handle) {
    if (!handle) return SUCCESS;
    const auto comm = alive(handle);
    const int result = usable(*comm);
    if (result) return result;
    drain(*comm, "ncclCommFinalize");
    comm->finalized = true;
    return answer(*comm);
}
static int forget(void* handle, const char* name, bool aborts) {
    if (!handle) return SUCCESS;
    const auto comm = alive(handle);
    if (asked("FAKE_NCCL_ABORT", "hang")) hang();
    {
        std::lock_guard guard(comm->lock);
        comm->aborted = aborts || (comm->state != SUCCESS && !comm->active);
        comm->poke();
    }
    drain(*comm, name);
    std::unique_lock guard(comm->lock);
    if (!comm->aborted) comm->put(LEAVE, 0, 0);
    comm->changed.wait_for(guard, std::chrono::seconds(5), [&] { return comm->closed || comm->aborted; });
    std::lock_guard other(living_lock);
    living.erase(handle);
    return SUCCESS;
}
API ncclCommDestroy(void* comm) { return forget(comm, "ncclCommDestroy", false); }
API ncclCommAbort(void* comm) { return forget(comm, "ncclCommAbort", true); }

static bool overlap(const char* a, size_t some, const char* b, size_t more) {
    return some && more && a < b + more && b < a + some;
}
// All calls of a group run at the same time: what one writes, no other may touch.
static void check_buffers(const std::vector<Use>& uses, const Comm& comm) {
    for (const Use& one : uses) {
        const size_t bytes = one.part.written(comm.size) * width(one.part.type);
        for (const Use& other : uses) {
            const size_t read = other.part.read(comm.rank, comm.size) * width(other.part.type);
            const size_t written = other.part.written(comm.size) * width(other.part.type);
            if (&one != &other) {
                MUST(!overlap(one.to, bytes, other.from, read) && !overlap(one.to, bytes, other.to, written));
                continue;
            }
            const size_t part = one.part.count * width(one.part.type);
            const char* mine = one.part.what == ALL_GATHER ? one.to + comm.rank * part : one.to;
            const char* from = one.part.what == REDUCE_SCATTER ? one.from + comm.rank * part : one.from;
            MUST(mine == from || !overlap(one.to, bytes, one.from, read));
        }
    }
}
static void note(const Call& call) {
    const char* prefix = getenv("FAKE_NCCL_LOG");
    FILE* file = prefix ? fopen((std::string(prefix) + "." + std::to_string(getpid())).c_str(), "a") : nullptr;
    if (!file) return;
    fprintf(file, "%s %llu %s %d %d %s\n", NAMES[call.use.part.what], (unsigned long long)call.use.part.count,
            name_of(call.use.part.type), call.comm->size, call.comm->rank, call.capture ? "captured" : "plain");
    fclose(file);
}

// Gives a stream the operation that a group is for one communicator.
static int issue_work(const std::vector<Call>& calls) {
    static const auto context_of = driver<int (*)(void**)>("cuCtxGetCurrent");
    static const auto enter = driver<int (*)(void*)>("cuCtxSetCurrent");
    static const auto make = driver<int (*)(void**, unsigned)>("cuEventCreate");
    static const auto record = driver<int (*)(void*, void*)>("cuEventRecord");
    static const auto wait = driver<int (*)(void*, void*, unsigned)>("cuStreamWaitEvent");
    static const auto give = driver<int (*)(void*, bool (*)(void*, void**), void*, void (*)(void*))>("fakeCudaAwait");
    const auto& [comm, use, stream, capture] = calls.front();
    auto* work = new Work{comm, {}, capture != nullptr};
    for (const Call& call : calls) {
        MUST(call.stream == stream && call.capture == capture && "one stream for a communicator's calls in a group");
        work->uses.push_back(call.use);
        note(call);
    }
    check_buffers(work->uses, *comm);
    if (capture) {
        std::lock_guard guard(comm->lock);
        ++comm->captured;
    }
    void* before = nullptr;
    context_of(&before);
    enter(comm->context);
    // The operations of a communicator keep the order of their calls, whatever their streams.
    void*& event = comm->events[capture != nullptr];
    if (!event) MUST(make(&event, 2) == 0);
    if (comm->stream && comm->stream != stream && comm->capture == capture) wait(stream, event, 0);
    int result = give(stream, advance, work, discard);
    if (!result) result = record(event, stream);
    enter(before);
    comm->stream = stream;
    comm->capture = capture;
    comm->user = std::this_thread::get_id();
    return result ? refuse(UNHANDLED_CUDA_ERROR, "Cuda failure " + std::to_string(result)) : answer(*comm);
}
static int launch(const std::vector<Call>& calls) {
    std::vector<std::vector<Call>> by_comm;
    for (const Call& call : calls) {
        auto at = by_comm.begin();
        while (at != by_comm.end() && at->front().comm != call.comm) ++at;
        if (at == by_comm.end()) at = by_comm.insert(at, std::vector<Call>());
        at->push_back(call);
    }
    const auto has = [&](const std::shared_ptr<Comm>& comm) {
        for (auto& one : by_comm)
            if (one.front().comm == comm) return true;
        return false;
    };
    const auto thread = std::this_thread::get_id();
    for (const Call& call : calls) {
        for (const Call& other : calls)
            if (other.comm->magic == call.comm->magic && !other.capture != !call.capture)
                return refuse(INVALID_USAGE,
                              "Either none or all communicators in a ncclGroup() can be CUDA graph captured.");
        std::lock_guard guard(living_lock);
        for (auto& [handle, comm] : living)
            if (call.use.part.collective() && comm->magic == call.comm->magic && comm->user == thread)
                MUST(has(comm) && "a collective of all communicators that a thread has, in one group");
    }
    int result = SUCCESS;
    for (auto& one : by_comm) {
        const int issued = issue_work(one);
        if (!result || result == IN_PROGRESS) result = issued ? issued : result;
    }
    return result;
}
API ncclGroupStart() { return ++group.depth, SUCCESS; }
API ncclGroupEnd() {
    if (group.depth == 0) return refuse(INVALID_USAGE, "ncclGroupEnd: not in a group call.");
    if (--group.depth > 0) return SUCCESS;
    const int error = std::exchange(group.error, SUCCESS);
    const auto calls = std::exchange(group.calls, {});
    const auto starts = std::exchange(group.starts, {});
    if (!starts.empty() && !error) return started(starts);
    return error ? error : launch(calls);
}

// What the real library checks is an error; the rest ends the process.
static int check(const Call& call) {
    static const auto held = driver<bool (*)(int, uint64_t, size_t)>("fakeCudaHoldsOn");
    const auto& [part, from, to] = call.use;
    const Comm& comm = *call.comm;
    if (part.peer < 0 || part.peer >= comm.size)
        return refuse(INVALID_ARGUMENT, std::string(NAMES[part.what]) + " : invalid root " + std::to_string(part.peer));
    if (part.type < 0 || part.type >= TYPES)
        return refuse(INVALID_ARGUMENT, std::string(NAMES[part.what]) + " : invalid type " + std::to_string(part.type));
    if (part.op < 0 || part.op >= 5)
        return refuse(INVALID_ARGUMENT,
                      "reduction operation " + std::to_string(part.op) + " unknown to this communicator");
    MUST(part.type == INT8 || part.type == UINT8 || (part.type >= FLOAT32 && part.type <= BFLOAT16));
    MUST(part.op == 0 && "a sum");
    const size_t read = part.read(comm.rank, comm.size), written = part.written(comm.size), bytes = width(part.type);
    MUST(read == 0 || (uint64_t(from) % bytes == 0 && held(comm.device, uint64_t(from), read * bytes)));
    MUST(written == 0 || (uint64_t(to) % bytes == 0 && held(comm.device, uint64_t(to), written * bytes)));
    return SUCCESS;
}
static int add(void* handle, const Part& part, const void* from, void* to, void* stream) {
    static const auto find = driver<int (*)(void*, int*, const void**)>("fakeCudaStream");
    static std::atomic<uint64_t> count;
    if (!handle) return refuse(INVALID_ARGUMENT, std::string(NAMES[part.what]) + " : comm argument is NULL");
    Call call = {alive(handle), {part, static_cast<const char*>(from), static_cast<char*>(to)}, stream, nullptr};
    int result = usable(*call.comm), device = -1;
    if (due("FAKE_NCCL_CALL", ++count)) return refuse(UNHANDLED_CUDA_ERROR, "stand-in failure");
    if (!result) result = check(call);
    if (result) return result;
    MUST(find(stream, &device, &call.capture) == 0 && device == call.comm->device);
    MUST(group.starts.empty() && "communicators started in a group of their own");
    if (part.count == 0 && part.collective()) return SUCCESS;
    if (group.depth == 0) return launch({call});
    group.calls.push_back(call);
    return SUCCESS;
}
API ncclAllReduce(const void* from, void* to, size_t count, int type, int op, void* comm, void* stream) {
    return in_group(add(comm, {ALL_REDUCE, type, op, 0, count}, from, to, stream));
}
API ncclReduceScatter(const void* from, void* to, size_t count, int type, int op, void* comm, void* stream) {
    return in_group(add(comm, {REDUCE_SCATTER, type, op, 0, count}, from, to, stream));
}
API ncclAllGather(const void* from, void* to, size_t count, int type, void* comm, void* stream) {
    return in_group(add(comm, {ALL_GATHER, type, 0, 0, count}, from, to, stream));
}
API ncclBroadcast(const void* from, void* to, size_t count, int type, int root, void* comm, void* stream) {
    return in_group(add(comm, {BROADCAST, type, 0, root, count}, from, to, stream));
}
API ncclSend(const void* from, size_t count, int type, int peer, void* comm, void* stream) {
    return in_group(add(comm, {SEND, type, 0, peer, count}, from, nullptr, stream));
}
API ncclRecv(void* to, size_t count, int type, int peer, void* comm, void* stream) {
    return in_group(add(comm, {RECV, type, 0, peer, count}, nullptr, to, stream));
}
