// A communicator of the stand-in NCCL (libnccl.cpp) as one rank has it: a thread that talks to the hub, the faults that
// tests ask for, and the work that streams of the stand-in driver come to.
#pragma once

#include "nccl_hub.h"

#include <fcntl.h>
#include <sys/eventfd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>

using Clock = std::chrono::steady_clock;

static std::mutex error_lock;
static char last_error[1024];
static void say(const std::string& text) {
    std::lock_guard guard(error_lock);
    snprintf(last_error, sizeof last_error, "%s", text.c_str());
}
[[noreturn]] static void hang() {
    for (;;) pause();
}

// The rank of this process among all, as its launcher gives it.
static int process_rank() {
    for (const char* name : {"RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"})
        if (getenv(name)) return atoi(getenv(name));
    return 0;
}
// What a setting "rank:what" says to this process; empty for others.
static std::string fault(const char* name) {
    const char* value = getenv(name);
    const char* colon = value ? strchr(value, ':') : nullptr;
    return colon && atoi(value) == process_rank() ? colon + 1 : "";
}
// Whether a fault "rank:number" is for this process and its operation or call of that number.
static bool due(const char* name, uint64_t number) {
    const std::string value = fault(name);
    return !value.empty() && strtoull(value.c_str(), nullptr, 10) == number;
}

struct Comm {
    int rank = 0, size = 0, device = 0;
    void* context = nullptr;
    bool blocking = true;
    uint64_t magic = 0;
    std::string place;  // of the hub
    Hello hello = {};

    std::mutex lock;
    std::condition_variable changed;
    int state = IN_PROGRESS;
    bool aborted = false, left = false, closed = false;  // `left`: another rank has destroyed its communicator
    std::string queued;
    std::map<uint64_t, std::string> results;
    uint64_t operations = 0;
    const void* active = nullptr;  // the operation that runs; there is one at a time
    int captured = 0;              // operations in graphs
    const int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    std::atomic<std::thread::id> user;  // the thread that has called it last
    // Of the calls, which come from one thread at a time.
    bool finalized = false, unasked = false;  // `unasked`: whether ncclCommGetAsyncError has to be called first
    void* stream = nullptr;
    void* events[2] = {};  // after the last operation outside of graphs, and in one
    const void* capture = nullptr;

    ~Comm() { close(wake); }

    // The functions below are called with the lock held.
    void put(Kind kind, int32_t value, uint64_t number, const std::string& body = "") {
        Pipe one;
        one.put(kind, value, number, body);
        queued += one.out;
        poke();
    }
    void poke() {
        const uint64_t one = 1;
        (void)!write(wake, &one, sizeof one);
    }
    void fail(int code, const std::string& text) {
        if (state != SUCCESS && state != IN_PROGRESS) return;
        state = code;
        say(text);
        changed.notify_all();
    }
    void take(const Message& message) {
        if (message.kind == WELCOME && state == IN_PROGRESS) state = SUCCESS;
        if (message.kind == FAILED) fail(message.value, message.body);
        if (message.kind == RESULT) results[message.number] = message.body;
        if (message.kind == LEFT) left = true;
    }
};

// Connects to the hub; -1 when it does not answer for some seconds.
static int reach(const std::string& place) {
    sockaddr_un to;
    const socklen_t bytes = address_of(place, to);
    for (int i = 0; i < 500; ++i) {
        const int file = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(file, reinterpret_cast<sockaddr*>(&to), bytes) == 0) {
            fcntl(file, F_SETFL, O_NONBLOCK);
            return file;
        }
        close(file);
        usleep(10000);
    }
    return -1;
}

// The thread of a communicator, until it is destroyed or aborted or the hub is gone.
static void serve(const std::shared_ptr<Comm>& comm) {
    Pipe pipe;
    pipe.file = reach(comm->place);
    bool here = pipe.file >= 0, dismissed = false;
    const char* hello = reinterpret_cast<const char*>(&comm->hello);
    pipe.put(HELLO, comm->rank, comm->magic, std::string(hello, sizeof comm->hello));
    while (here && !dismissed) {
        {
            std::lock_guard guard(comm->lock);
            if (comm->aborted) break;
            pipe.out += comm->queued;
            comm->queued.clear();
        }
        pipe.flush();
        pollfd asked[] = {{pipe.file, pipe.wanted(), 0}, {comm->wake, POLLIN, 0}};
        poll(asked, 2, -1);
        uint64_t count;
        (void)!read(comm->wake, &count, sizeof count);
        here = pipe.fill();
        std::lock_guard guard(comm->lock);
        for (Message message; pipe.next(message);) {
            comm->take(message);
            dismissed |= message.kind == FAREWELL;
        }
        comm->changed.notify_all();
    }
    if (pipe.file >= 0) close(pipe.file);
    std::lock_guard guard(comm->lock);
    // After another rank has destroyed its communicator, and all results are here, the hub may end.
    if (!here && (!comm->left || (comm->active && comm->results.empty()))) comm->fail(REMOTE_ERROR, GONE);
    comm->closed = true;
    comm->changed.notify_all();
}

// One call, and the work of a stream that comes of one or several in a group.
struct Use {
    Part part;
    const char* from;
    char* to;
};
struct Work {
    std::shared_ptr<Comm> comm;
    std::vector<Use> uses;
    bool captured;
};
struct Run {
    Clock::time_point start;
    uint64_t number = 0;
    bool hangs = false, sent = false;
};

// Whatever lay there is gone; a rank's own part of an all-gather or broadcast in place stays.
static void spoil(const Use& use, const Comm& comm) {
    const size_t bytes = use.part.count * width(use.part.type);
    if (use.part.what == ALL_GATHER) {
        for (int r = 0; r < comm.size; ++r)
            if (use.to + r * bytes != use.from) memset(use.to + r * bytes, 0xff, bytes);
    } else {
        const bool own = use.part.what == BROADCAST && use.part.peer == comm.rank && use.from == use.to;
        if (use.part.what != SEND && !own) memset(use.to, 0xff, bytes);
    }
}

// Applies the faults that are due.
static void begin(Run& run, Comm& comm) {
    static std::atomic<uint64_t> count;
    const uint64_t number = ++count;
    run.start = Clock::now();
    run.hangs = due("FAKE_NCCL_HANG", number);
    if (due("FAKE_NCCL_ASYNC", number)) {
        run.hangs = true;
        comm.fail(INTERNAL_ERROR, "stand-in failure");
    }
    const std::string late = fault("FAKE_NCCL_LATE");
    const size_t colon = late.find(':');
    if (colon != std::string::npos && due("FAKE_NCCL_LATE", number))
        run.start += std::chrono::milliseconds(atoll(late.c_str() + colon + 1));
}

// Goes on with a run of some work; true when it has ended.
static bool advance(void* data, void** state) {
    const Work& work = *static_cast<Work*>(data);
    Comm& comm = *work.comm;
    std::lock_guard guard(comm.lock);
    Run*& run = reinterpret_cast<Run*&>(*state);
    if (!run && comm.active && !comm.aborted) return false;
    if (!run) {
        comm.active = run = new Run;
        if (!comm.aborted) begin(*run, comm);
    }
    const auto end = [&] {
        if (comm.active == run) comm.active = nullptr;
        delete run;
        comm.changed.notify_all();
        return true;
    };
    if (comm.aborted) {
        for (const Use& use : work.uses) spoil(use, comm);
        return end();
    }
    if (!run->sent) {
        if (comm.closed) comm.fail(REMOTE_ERROR, GONE);
        if (run->hangs || comm.state != SUCCESS || Clock::now() < run->start) return false;
        std::string parts, inputs;
        for (const Use& use : work.uses) {
            parts.append(reinterpret_cast<const char*>(&use.part), sizeof use.part);
            inputs.append(use.from, use.part.read(comm.rank, comm.size) * width(use.part.type));
        }
        run->number = ++comm.operations;
        comm.put(OPERATION, int32_t(work.uses.size()), run->number, parts + inputs);
        for (const Use& use : work.uses) spoil(use, comm);
        run->sent = true;
    }
    const auto found = comm.results.find(run->number);
    if (found == comm.results.end()) return false;
    const char* from = found->second.data();
    for (const Use& use : work.uses) {
        const size_t bytes = use.part.written(comm.size) * width(use.part.type);
        if (bytes) memcpy(use.to, from, bytes);
        from += bytes;
    }
    comm.results.erase(found);
    return end();
}
static void discard(void* data) {
    Work* work = static_cast<Work*>(data);
    if (work->captured) {
        std::lock_guard guard(work->comm->lock);
        --work->comm->captured;
        work->comm->changed.notify_all();
    }
    delete work;
}
