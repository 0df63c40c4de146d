// Part of nccl_check.cpp: the faults that the stand-in NCCL makes and finds.
static int asynchronous(const Rank& one) {
    int error = -1;
    OK("ncclCommGetAsyncError", one.comm, &error);
    return error;
}
// Polls until the work has ended (0) or the communicator reports an error; 7 after some milliseconds.
static int outcome(const Rank& one, int milliseconds = 10000) {
    for (int i = 0; i < milliseconds; ++i, usleep(1000)) {
        const int ready = call("cuStreamQuery", one.stream), error = asynchronous(one);
        if (ready == 0) return 0;
        if (error) return error;
        MUST(ready == NOT_READY);
    }
    return 7;
}
static int reduces(const Rank& one, size_t count = 10, void* stream = nullptr, uint64_t to = 0) {
    void* at = reinterpret_cast<void*>(to ? to : one.out);
    return call("ncclAllReduce", (void*)one.in, at, count, F32, 0, one.comm, stream ? stream : one.stream);
}
static void reduce(const Rank& one, size_t count = 10) { MUST(reduces(one, count) == 0); }
// A graph of a collective.
static void* record(const Rank& one) {
    void *graph, *run;
    OK("cuStreamBeginCapture_v2", one.stream, 2);
    reduce(one);
    OK("cuStreamEndCapture", one.stream, &graph);
    OK("cuGraphInstantiateWithFlags", &run, graph, 0ull);
    OK("cuGraphDestroy", graph);
    return run;
}
// An aborted communicator leaves its stream free.
static void abort_all() {
    for (Rank& one : mine) OK("ncclCommAbort", one.comm);
    for (Rank& one : mine) OK("cuStreamSynchronize", one.stream);
}
static void pass_time(int milliseconds) { usleep(milliseconds * 1000); }

// A stream computes, another one sums, and the first one uses the sum; the ranks are asked for it in reverse.
static void beside_work(int) {
    struct Beside {
        void *stream, *computed, *summed, *run;
    };
    std::vector<Beside> all(mine.size());
    MUST(init() == 0);
    for (bool captured : {false, true, true}) {
        for (size_t i = 0; i < mine.size(); ++i) {
            enter(mine[i]);
            if (!captured) {
                OK("cuStreamCreate", &all[i].stream, 1u);
                OK("cuEventCreate", &all[i].computed, 2u);
                OK("cuEventCreate", &all[i].summed, 2u);
            } else {
                OK("cuStreamBeginCapture_v2", mine[i].stream, 2);
            }
            OK("cuMemsetD8Async", mine[i].in, char(mine[i].rank + 3), 64ul, mine[i].stream);
            OK("cuEventRecord", all[i].computed, mine[i].stream);
            OK("cuStreamWaitEvent", all[i].stream, all[i].computed, 0u);
        }
        OK("ncclGroupStart");
        for (size_t i = 0; i < mine.size(); ++i)
            OK("ncclAllReduce", (void*)mine[i].in, (void*)mine[i].in, 64ul, U8, 0, mine[i].comm, all[i].stream);
        OK("ncclGroupEnd");
        for (size_t i = mine.size(); i-- > 0;) {
            enter(mine[i]);
            OK("cuEventRecord", all[i].summed, all[i].stream);
            OK("cuStreamWaitEvent", mine[i].stream, all[i].summed, 0u);
            OK("cuMemcpyAsync", mine[i].out, mine[i].in, 64ul, mine[i].stream);
            OK("cuMemsetD8Async", mine[i].in, char(99), 64ul, mine[i].stream);
            if (!captured) continue;
            void* graph;
            OK("cuStreamEndCapture", mine[i].stream, &graph);
            OK("cuGraphInstantiateWithFlags", &all[i].run, graph, 0ull);
            OK("cuGraphDestroy", graph);
        }
        for (int time = 0; time < (captured ? 5 : 1); ++time) {
            for (size_t i = 0; captured && i < mine.size(); ++i) {
                OK("cuMemsetD8Async", mine[i].out, char(0), 64ul, mine[i].stream);
                OK("cuGraphLaunch", all[i].run, mine[i].stream);
            }
            const Bytes sums(64, char(3 * size + size * (size - 1) / 2));
            for (size_t i = mine.size(); i-- > 0;) MUST(outputs(mine[i], 64) == sums);
        }
        for (size_t i = 0; captured && i < mine.size(); ++i) OK("cuGraphExecDestroy", all[i].run);
    }
    for (Rank& one : mine) OK("ncclCommDestroy", one.comm);
}

static void faults() {
    job("sums beside other work", 2, 1, "", beside_work);
    job("sums beside other work, two ranks per process", 2, 2, "", beside_work);
    job("one GPU for two ranks", 2, 1, "FAKE_CUDA_SHARED=1", [](int) {
        MUST(init() == 5 && mine[0].comm == nullptr);
        MUST(last_error() == "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 0000:00:00.0");
    });
    job("a process that is killed", 3, 1, "", [](int process) {
        MUST(init() == 0);
        reduce(mine[0]);
        MUST(outcome(mine[0]) == 0);
        if (process == 1) raise(SIGKILL);
        const int issued = reduces(mine[0]);  // before or after the loss is noticed
        MUST((issued == 6 || (issued == 0 && outcome(mine[0]) == 6)) && asynchronous(mine[0]) == 6);
        MUST(last_error() == "remote process has ended or there is a network error");
        abort_all();
    }, SIGKILL);
    job("the hub's process is killed", 2, 1, "", [](int process) {
        MUST(init() == 0);
        reduce(mine[0]);
        MUST(outcome(mine[0]) == 0);
        if (process == 0) pass_time(300), raise(SIGKILL);
        for (int i = 0; i < 1000 && asynchronous(mine[0]) == 0; ++i) usleep(1000);
        MUST(asynchronous(mine[0]) == 6 && reduces(mine[0]) == 6);
        abort_all();
    }, SIGKILL);
    job("a collective that hangs", 2, 1, "FAKE_NCCL_HANG=1:2", [](int) {
        MUST(init() == 0);
        reduce(mine[0]);
        MUST(outcome(mine[0]) == 0);
        reduce(mine[0]);
        void* event;
        OK("cuEventCreate", &event, 2u);
        OK("cuEventRecord", event, mine[0].stream);
        MUST(outcome(mine[0], 300) == 7 && call("cuEventQuery", event) == NOT_READY);
        // Both have to have seen it before one aborts.
        pass_time(500);
        abort_all();
    });
    job("a graph that hangs", 2, 1, "FAKE_NCCL_HANG=1:1", [](int) {
        MUST(init() == 0);
        void* run = record(mine[0]);
        OK("cuGraphLaunch", run, mine[0].stream);
        MUST(outcome(mine[0], 300) == 7);
        pass_time(500);
        OK("cuGraphExecDestroy", run);
    });
    job("a rank that is late", 2, 1, "FAKE_NCCL_LATE=1:1:400", [](int) {
        MUST(init() == 0);
        const auto begin = std::chrono::steady_clock::now();
        reduce(mine[0]);
        MUST(outcome(mine[0]) == 0);
        MUST(std::chrono::steady_clock::now() - begin > std::chrono::milliseconds(390));
        OK("ncclCommDestroy", mine[0].comm);
    });
    job("an asynchronous error", 2, 1, "FAKE_NCCL_ASYNC=0:1", [](int process) {
        MUST(init() == 0);
        reduce(mine[0]);
        MUST(outcome(mine[0], 300) == (process ? 7 : 3) && (process || last_error() == "stand-in failure"));
        pass_time(process ? 200 : 800);
        abort_all();
    });
    job("a call and a start that fail", 2, 1, "FAKE_NCCL_CALL=1:2 FAKE_NCCL_INIT=0:fail", [](int process) {
        MUST(init() == (process ? 6 : 2) || process);
        if (process == 0) usleep(300000), _exit(0);
    });
    job("a call that fails", 1, 1, "FAKE_NCCL_CALL=0:2", [](int) {
        MUST(init() == 0);
        reduce(mine[0]);
        MUST(reduces(mine[0]) == 1);
    });
    job("ranks that call different things", 2, 1, "", [](int process) {
        MUST(init() == 0);
        reduce(mine[0], 10 + process);
        MUST(outcome(mine[0]) == 5);
        MUST(last_error().find("is AllReduce of 11 float32, but that of rank ") != std::string::npos ||
             last_error().find("is AllReduce of 10 float32, but that of rank ") != std::string::npos);
        pass_time(300);
        abort_all();
    });
    job("a rank that has left", 2, 1, "", [](int process) {
        MUST(init() == 0);
        if (process == 0) {
            OK("ncclCommDestroy", mine[0].comm);
            pass_time(500);
            return;
        }
        reduce(mine[0]);
        MUST(outcome(mine[0]) == 5);
        abort_all();
    });
    job("a start that does not wait", 2, 1, "", [](int process) {
        struct {
            size_t size = 64;
            unsigned magic = 0xcafebeef, version = 22707;
            int blocking = 0, others[11];
        } config;
        Rank& one = mine[0];
        if (process == 1) pass_time(200);
        MUST(call("ncclCommInitRankConfig", &one.comm, size, shared->id, one.rank, (void*)&config) == 7);
        MUST(process || (asynchronous(one) == 7 && reduces(one) == 4));
        while (asynchronous(one) == 7) usleep(1000);
        MUST(reduces(one) == 7 && reduces(one) == 4 && outcome(one) == 0);
        MUST(call("ncclCommFinalize", one.comm) == 7 && asynchronous(one) == 0);
        OK("ncclCommDestroy", one.comm);
    });
    job("a thread for each rank", 1, 2, "", [](int) {
        MUST(init() == 0);
        const auto work = [](const Rank& one) {
            enter(one);
            void* run = record(one);
            for (int i = 0; i < 100; ++i) {
                reduce(one, 100 + i);
                OK("cuGraphLaunch", run, one.stream);
                if (i % 3 == 0) OK("cuStreamSynchronize", one.stream);
            }
            MUST(outcome(one) == 0);
            OK("cuGraphExecDestroy", run);
            OK("ncclCommDestroy", one.comm);
        };
        std::thread other([&] { work(mine[1]); });
        work(mine[0]);
        other.join();
    });
    job("two streams", 2, 1, "", [](int) {
        MUST(init() == 0);
        Rank other = mine[0];
        OK("cuStreamCreate", &other.stream, 1u);
        OK("cuMemAlloc_v2", &other.out, ROOM);
        for (int i = 0; i < 20; ++i) reduce(i % 3 ? other : mine[0], 10 + i);
        MUST(outcome(other) == 0 && outcome(mine[0]) == 0);
        OK("ncclCommDestroy", mine[0].comm);
    });
    job("a graph that is longer than its communicator", 1, 1, "", [](int) {
        MUST(init() == 0);
        record(mine[0]);
        alarm(2);
        call("ncclCommDestroy", mine[0].comm);
    }, SIGALRM);
    job("an abort that hangs", 1, 1, "FAKE_NCCL_ABORT=hang", [](int) {
        MUST(init() == 0);
        alarm(1);
        call("ncclCommAbort", mine[0].comm);
    }, SIGALRM);
    job("a collective of two ranks without a group", 1, 2, "", [](int) {
        MUST(init() == 0);
        for (Rank& one : mine) reduces(one);
    }, SIGABRT);
    job("a stream of another device", 1, 2, "", [](int) {
        MUST(init() == 0);
        reduces(mine[0], 10, mine[1].stream);
    }, SIGABRT);
    job("memory of another device", 1, 2, "", [](int) {
        MUST(init() == 0);
        reduces(mine[0], 10, nullptr, mine[1].out);
    }, SIGABRT);
    job("a result over a part of the input", 1, 1, "", [](int) {
        MUST(init() == 0);
        reduces(mine[0], 10, nullptr, mine[0].in + 4);
    }, SIGABRT);
    job("a group without an end", 1, 1, "", [](int) {
        MUST(call("ncclGroupEnd") == 5);
        OK("ncclGroupStart");
    }, SIGABRT);
    job("sends that wait for each other", 2, 1, "", [](int process) {
        MUST(init() == 0);
        OK("ncclSend", (void*)mine[0].in, 4ul, F32, 1 - process, mine[0].comm, mine[0].stream);
        OK("ncclRecv", (void*)mine[0].out, 4ul, F32, 1 - process, mine[0].comm, mine[0].stream);
        MUST(outcome(mine[0]) == 5);
        pass_time(300);
        abort_all();
    });
}
