// What the stand-in driver of tests/gpu has: streams of commands, events, captures, memory and kernels. The driver's
// calls are in libcuda.cpp.
//
// FAKE_CUDA_KERNELS: the emulated device's library. FAKE_CUDA_ENTRIES: a file with a line "name threads sizes..." per
// kernel; the size of an address that the kernel writes through ends in w. FAKE_CUDA_BYTES: the memory of each device.
// FAKE_CUDA_FAULT: a kernel that faults. FAKE_CUDA_HANG: a kernel that never ends, perhaps only in process
// FAKE_CUDA_HANG_RANK. FAKE_CUDA_WRONG: a kernel that computes its first value wrong.
// FAKE_CUDA_PEERS=0: no device reaches another's memory.
#pragma once

#include <dlfcn.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

enum Result {
    OK = 0,
    INVALID_VALUE = 1,
    NO_MEMORY = 2,
    NOT_READY = 600,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    CAPTURE_INVALID = 901,
    CAPTURE_UNJOINED = 904,
    CAPTURE_ISOLATION = 905,
    UNKNOWN = 999
};

struct Event {
    uint64_t issued = 0, done = 0;
    bool timed = true;
    struct Capture* capture = nullptr;
    std::map<struct Stream*, uint64_t> clock;
};
struct Command {
    std::function<int()> run;
    Event* waits = nullptr;
    uint64_t ticket = 0;  // of the event that it waits for, or records
    Event* records = nullptr;
    std::function<bool()> ready;  // asked until other processes have done their part
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
    bool replaying = false;
};
using Seen = std::map<Event*, uint64_t>;  // the tickets of a replay's events
using Value = std::vector<uint64_t>;  // of an argument, in as many words as it needs
struct Kernel {
    const void* handle;
    unsigned threads;
    std::vector<size_t> sizes;
    std::vector<bool> written;
    std::string name;
    mutable unsigned shared = 48 << 10;  // that a block may use
};
struct Context {
    int device, users = 0;
};

static std::recursive_mutex mutex;
static std::set<Stream*> streams;
static std::set<Event*> events;
static std::map<Capture*, std::shared_ptr<Capture>> graphs;
static std::map<uint64_t, std::pair<size_t, int>> memory;  // start: bytes, device; pinned host memory is device -1
static std::map<std::string, Kernel> kernels;
static std::vector<Context> contexts;
static thread_local Context* current = nullptr;
static int failure = OK;
static bool hanging = false;
static bool awaited = false;  // whether a command was not ready when it was last its turn

static thread_local int locks = 0;
struct Lock {
    Lock() { mutex.lock(), ++locks; }
    ~Lock() { --locks, mutex.unlock(); }
};
// Lets other threads call while this one waits for other processes.
static void rest() {
    for (int i = 0; i < locks; ++i) mutex.unlock();
    usleep(100);
    for (int i = 0; i < locks; ++i) mutex.lock();
}

// What a call does that waits for a kernel that never ends; aborts so that a test fails.
static void waits() {
    if (!hanging) return;
    fputs("fake cuda: a call waits for ever\n", stderr);
    abort();
}

using Launch = int (*)(const void*, const unsigned*, const unsigned*, size_t, void**, uint64_t, uint64_t, int, uint64_t,
                       char*, size_t);
static Launch emu_launch;

static const char* setting(const char* name, const char* otherwise) {
    const char* value = getenv(name);
    return value ? value : otherwise;
}

static bool blocked(const Command& command, Seen* seen = nullptr) {
    return command.waits && (seen ? (*seen)[command.waits] : command.waits->done) < command.ticket;
}
static bool blocked(const Stream* stream) { return !stream->pending.empty() && blocked(stream->pending.front()); }
// Whether a queue has commands that other processes take part in.
static bool talks(const std::deque<Command>& queue) {
    for (const Command& command : queue)
        if (command.ready) return true;
    return false;
}

// Runs the first command of a queue; false when it has to wait for an event or for other processes. A device that
// hangs or has faulted does nothing more for others.
static bool step(std::deque<Command>& queue, Seen* seen = nullptr) {
    Command& command = queue.front();
    if (blocked(command, seen)) return false;
    if (command.ready && (hanging || failure || !command.ready())) {
        awaited = true;
        return false;
    }
    if (command.run) {
        const int result = command.run();
        if (result != OK) failure = result;
    }
    if (command.records) {
        command.records->done = std::max(command.records->done, command.ticket);
        if (seen) (*seen)[command.records] = command.ticket;
    }
    queue.pop_front();
    return true;
}

// Runs what other streams have to do before the event that a stream waits for; false when none of them can go on.
static bool run_others(Stream* stream) {
    bool moved = false;
    for (Stream* other : streams)
        while (other != stream && !other->pending.empty() && blocked(stream) && step(other->pending)) moved = true;
    return moved;
}
// While a stream waits for another process, that one may wait for other streams of this process.
static bool run_talkers(Stream* stream) {
    bool moved = false;
    for (Stream* other : streams)
        while (other != stream && talks(other->pending) &&
               (step(other->pending) || (blocked(other) && run_others(other))))
            moved = true;
    return moved;
}

// Does what a stream needs, and nothing else. One that is not patient comes back when only other processes can go on.
static int finish(Stream* stream, bool patient = true) {
    while (streams.count(stream) && !stream->pending.empty()) {
        awaited = false;
        if (step(stream->pending)) continue;
        if (blocked(stream) ? run_others(stream) : run_talkers(stream)) continue;
        if (failure) return failure;
        if (!awaited) {
            fputs("fake cuda: streams wait for each other\n", stderr);
            abort();
        }
        if (!patient) return NOT_READY;
        rest();
    }
    return failure;
}
static void finish_all() {
    const std::set<Stream*> now = streams;
    for (Stream* stream : now) finish(stream);
}
// Runs streams until an event has come.
static int settle(Event* event, bool patient) {
    for (;; rest()) {
        bool waiting = false;
        for (Stream* stream : streams)
            while (event->done < event->issued && !stream->pending.empty()) {
                const int result = finish(stream, false);
                waiting |= result == NOT_READY;
                if (result != OK) break;
            }
        if (!waiting || event->done >= event->issued || failure) return failure;
        if (!patient) return NOT_READY;
    }
}

// A run of a graph. Its events are its own, so that other streams may go on while it waits for other processes.
struct Replay {
    std::vector<std::pair<Stream*, std::deque<Command>>> queues;
    Seen seen;

    // The last queue first: as far from the order of issue as the events allow.
    void advance() {
        for (bool moved = true; moved;) {
            moved = awaited = false;
            for (size_t i = queues.size(); i-- > 0;)
                while (!queues[i].second.empty() && step(queues[i].second, &seen)) moved = true;
        }
    }
    int result() const {
        for (const auto& queue : queues)
            if (!queue.second.empty()) return CAPTURE_INVALID;
        return failure;
    }
};
static Command replay(const std::shared_ptr<Capture>& graph) {
    bool outside = false;
    for (auto& queue : graph->queues) outside |= talks(queue.second);
    const auto run = std::make_shared<Replay>();
    Command command;
    if (!outside) {
        command.run = [=] { return run->queues = graph->queues, run->advance(), run->result(); };
        return command;
    }
    command.ready = [=, begun = false]() mutable {
        if (!begun && graph->replaying) return false;  // one run at a time
        if (!begun) run->queues = graph->queues;
        begun = true;
        run->advance();
        graph->replaying = awaited;
        return !awaited;
    };
    command.run = [=] { return run->result(); };
    return command;
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
        for (std::string size; words >> size;) {
            kernel.sizes.push_back(std::stoul(size));
            kernel.written.push_back(size.back() == 'w');
        }
        kernel.handle = find(kernel.name.c_str());
        kernels[kernel.name] = kernel;
    }
}

static int run_kernel(const Kernel& kernel, const unsigned* grid, size_t shared, std::vector<Value> values) {
    if (kernel.name == setting("FAKE_CUDA_FAULT", "")) return ILLEGAL_ADDRESS;
    // Of several processes, perhaps only that of one rank hangs.
    const bool here = strcmp(setting("FAKE_CUDA_HANG_RANK", setting("RANK", "0")), setting("RANK", "0")) == 0;
    if (kernel.name == setting("FAKE_CUDA_HANG", "") && here) return hanging = true, OK;
    std::vector<void*> args;
    for (Value& value : values) args.push_back(value.data());
    const unsigned size[] = {kernel.threads, 1, 1};
    char error[1024];
    const uint64_t blocks = uint64_t(grid[0]) * grid[1] * grid[2];
    if (emu_launch(kernel.handle, grid, size, shared, args.data(), 0, blocks, 1, 0, error, sizeof error) != 0) {
        fprintf(stderr, "fake cuda: %s: %s\n", kernel.name.c_str(), error);
        return ILLEGAL_ADDRESS;
    }
    if (kernel.name == setting("FAKE_CUDA_WRONG", ""))
        for (size_t i = 0; i < values.size(); ++i)
            if (kernel.written[i] && values[i][0]) {
                *reinterpret_cast<float*>(values[i][0]) += 1;
                break;
            }
    return OK;
}
