// Checks the stand-in NCCL with jobs of several processes, for tests/gpu/nccl.rs. By hand, with S=<repository>/tests/gpu:
//   g++ -std=c++20 -O1 -fPIC -shared -w -o libcuda.so $S/libcuda.cpp -ldl
//   g++ -std=c++20 -O1 -fPIC -shared -w -o libnccl.so.2 $S/libnccl.cpp -ldl -pthread
//   g++ -std=c++20 -O1 -o nccl_check $S/nccl_check.cpp -ldl -pthread && LD_LIBRARY_PATH=. ./nccl_check
#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

// Ends the process without more ado, so that the others of its job see it.
static void must(bool good, const char* file, int line, const char* what) {
    if (good) return;
    fprintf(stderr, "%s:%d: not %s\n", file, line, what);
    _exit(1);
}
#define MUST(...) must(__VA_ARGS__, __FILE__, __LINE__, #__VA_ARGS__)
template <typename... A> static int call(const char* name, A... arguments) {
    static void *cuda = dlopen("libcuda.so", RTLD_NOW), *nccl = dlopen("libnccl.so.2", RTLD_NOW);
    MUST(cuda && nccl);
    void* found = dlsym(name[0] == 'c' ? cuda : nccl, name);
    MUST(found);
    return reinterpret_cast<int (*)(A...)>(found)(arguments...);
}
#define OK(...) MUST(call(__VA_ARGS__) == 0)
using Bytes = std::vector<char>;
enum { U8 = 1, F32 = 7, F64 = 8, BF16 = 9, NOT_READY = 600 };

struct Id {
    char bytes[128];
};
static struct Shared {
    Id id;
    volatile bool made;
}* shared;
struct Rank {
    int rank;
    void *context, *stream, *comm = nullptr;
    uint64_t in, out;
};
static const size_t N = 1003, ROOM = 8 * N * 4;
static int size;
static std::vector<Rank> mine;
static void enter(const Rank& one) { OK("cuCtxSetCurrent", one.context); }
static std::string last_error() {
    void* nccl = dlopen("libnccl.so.2", RTLD_NOW);
    return reinterpret_cast<const char* (*)(void*)>(dlsym(nccl, "ncclGetLastError"))(nullptr);
}

static void open_devices(int process, int devices) {
    OK("cuInit", 0u);
    for (int d = 0; d < devices; ++d) {
        Rank one = {process * devices + d};
        OK("cuDevicePrimaryCtxRetain", &one.context, d);
        enter(one);
        OK("cuStreamCreate", &one.stream, 1u);
        OK("cuMemAlloc_v2", &one.in, ROOM);
        OK("cuMemAlloc_v2", &one.out, ROOM);
        mine.push_back(one);
    }
    if (process == 0) {
        OK("ncclGetUniqueId", &shared->id);
        shared->made = true;
    }
    while (!shared->made) usleep(1000);
}
static int init() {
    OK("ncclGroupStart");
    for (Rank& one : mine) {
        enter(one);
        call("ncclCommInitRank", &one.comm, size, shared->id, one.rank);
    }
    return call("ncclGroupEnd");
}

static size_t width(int type) { return type == F64 ? 8 : type == F32 ? 4 : type == BF16 ? 2 : 1; }
static float input(int rank, size_t i) { return float((i * 7919 + rank * 104729) % 199 + 1) / (rank + 3); }
static Bytes encode(const std::vector<double>& values, int type) {
    Bytes to(values.size() * width(type));
    for (size_t i = 0; i < values.size(); ++i) {
        const float narrow = float(values[i]);
        const char byte = char(int(values[i]));
        uint32_t bits;
        memcpy(&bits, &narrow, 4);
        const uint16_t high = uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
        const void* from[] = {&byte, &high, &narrow, &values[i]};
        memcpy(&to[i * width(type)], from[type == U8 ? 0 : type == BF16 ? 1 : type == F32 ? 2 : 3], width(type));
    }
    return to;
}
static double decode(const Bytes& from, size_t i, int type) {
    if (type == U8) return uint8_t(from[i]);
    if (type == F64) return reinterpret_cast<const double*>(from.data())[i];
    if (type == F32) return reinterpret_cast<const float*>(from.data())[i];
    const uint32_t bits = uint32_t(reinterpret_cast<const uint16_t*>(from.data())[i]) << 16;
    float value;
    return memcpy(&value, &bits, 4), value;
}
static Bytes inputs(int rank, size_t count, int type) {
    std::vector<double> values;
    for (size_t i = 0; i < count; ++i) values.push_back(input(rank, i));
    return encode(values, type);
}
static Bytes outputs(const Rank& one, size_t bytes) {
    Bytes to(bytes);
    OK("cuMemcpyDtoHAsync_v2", (void*)to.data(), one.out, bytes, one.stream);
    return to;
}

enum What { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST, PASS_ON };
static void collective(What what, const Rank& one, int type) {
    void *in = (void*)one.in, *out = (void*)one.out, *comm = one.comm, *stream = one.stream;
    if (what == ALL_REDUCE) OK("ncclAllReduce", in, out, N, type, 0, comm, stream);
    if (what == REDUCE_SCATTER) OK("ncclReduceScatter", in, out, N, type, 0, comm, stream);
    if (what == ALL_GATHER) OK("ncclAllGather", in, out, N, type, comm, stream);
    if (what == BROADCAST) OK("ncclBroadcast", in, out, N, type, size - 1, comm, stream);
    if (what != PASS_ON) return;
    OK("ncclSend", in, N, type, (one.rank + 1) % size, comm, stream);
    OK("ncclRecv", out, N, type, (one.rank + size - 1) % size, comm, stream);
}
static void check(What what, const Rank& one, int type) {
    const size_t w = width(type);
    if (what == BROADCAST || what == PASS_ON) {
        const int from = what == BROADCAST ? size - 1 : (one.rank + size - 1) % size;
        MUST(outputs(one, N * w) == inputs(from, N, type));
    } else if (what == ALL_GATHER) {
        Bytes wanted;
        for (int r = 0; r < size; ++r)
            for (char byte : inputs(r, N, type)) wanted.push_back(byte);
        MUST(outputs(one, N * w * size) == wanted);
    } else {
        const Bytes got = outputs(one, N * w);
        const size_t first = what == REDUCE_SCATTER ? one.rank * N : 0;
        bool plain = true;
        for (size_t i = 0; i < N; ++i) {
            double total = 0;
            float in_order = 0;
            for (int r = 0; r < size; ++r) {
                const Bytes x = encode({input(r, first + i)}, type);
                total += decode(x, 0, type);
                in_order += float(decode(x, 0, type));
            }
            const double value = decode(got, i, type), wanted = type == U8 ? int(total) % 256 : total;
            const double share = type == F64 ? 1e-15 : type == F32 ? 1e-6 : type == BF16 ? 0.02 : 0;
            MUST(std::abs(value - wanted) <= total * share);
            plain &= float(value) == in_order;
        }
        // The order of a ring is another one, but for the last rank's part.
        MUST(plain == (size < 3 || (what == REDUCE_SCATTER && one.rank == size - 1)) || type != F32);
    }
}
static void one_collective(What what, int type, bool captured, bool in_place) {
    std::vector<Rank> ranks = mine;
    std::vector<void*> runs(ranks.size());
    for (Rank& one : ranks) {
        enter(one);
        const size_t part = one.rank * N * width(type);
        OK("cuMemsetD8Async", one.out, 0x11, ROOM, one.stream);
        if (in_place && what == ALL_GATHER) one.in = one.out + part;
        else if (in_place && what != PASS_ON) one.out = one.in + (what == REDUCE_SCATTER ? part : 0);
    }
    // The input is written anew for each run, as one in place replaces it.
    const auto write = [&](const Rank& one) {
        const Bytes data = inputs(one.rank, what == REDUCE_SCATTER ? N * size : N, type);
        OK("cuMemcpyHtoDAsync_v2", one.in, (const void*)data.data(), data.size(), one.stream);
    };
    for (Rank& one : ranks) {
        enter(one);
        if (captured) OK("cuStreamBeginCapture_v2", one.stream, 2);
        else write(one);
    }
    OK("ncclGroupStart");
    for (Rank& one : ranks) collective(what, one, type);
    OK("ncclGroupEnd");
    for (size_t i = 0; captured && i < ranks.size(); ++i) {
        void* graph;
        enter(ranks[i]);
        OK("cuStreamEndCapture", ranks[i].stream, &graph);
        OK("cuGraphInstantiateWithFlags", &runs[i], graph, 0ull);
        OK("cuGraphDestroy", graph);
    }
    for (int time = 0; time < (captured ? 3 : 1); ++time) {
        for (size_t i = 0; captured && i < ranks.size(); ++i) {
            enter(ranks[i]);
            write(ranks[i]);
            OK("cuGraphLaunch", runs[i], ranks[i].stream);
        }
        for (Rank& one : ranks) enter(one), check(what, one, type);
    }
    for (void* run : runs)
        if (run) OK("cuGraphExecDestroy", run);
}
static void all_collectives(int) {
    MUST(init() == 0);
    for (int type : {F32, F64, BF16, U8})
        for (What what : {ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST, PASS_ON})
            for (bool captured : {false, true})
                for (bool in_place : {false, true}) one_collective(what, type, captured, in_place);
    for (Rank& one : mine) OK("ncclCommDestroy", one.comm);
}

// Runs a job whose processes have some devices each and end with code 0 or, where that is wanted, by a signal.
static int failed = 0;
static void job(const char* name, int processes, int devices, const char* settings, void (*body)(int), int signal = 0) {
    shared->made = false;
    size = processes * devices;
    std::vector<pid_t> children;
    for (int p = 0; p < processes; ++p) {
        children.push_back(fork());
        if (children.back()) continue;
        alarm(60);
        setenv("RANK", std::to_string(p).c_str(), 1);
        setenv("LOCAL_RANK", std::to_string(p).c_str(), 1);
        for (std::string rest = settings; !rest.empty();) {
            const std::string one = rest.substr(0, rest.find(' '));
            rest.erase(0, one.size() + 1);
            setenv(one.substr(0, one.find('=')).c_str(), one.substr(one.find('=') + 1).c_str(), 1);
        }
        open_devices(p, devices);
        body(p);
        exit(0);
    }
    bool good = true, signalled = false;
    for (pid_t child : children) {
        int status = 0;
        waitpid(child, &status, 0);
        const bool wanted = signal && WIFSIGNALED(status) && WTERMSIG(status) == signal;
        good &= status == 0 || wanted;
        signalled |= wanted;
    }
    good &= signalled == (signal != 0);
    printf("%s %s\n", good ? "ok    " : "FAILED", name);
    fflush(stdout);
    failed += !good;
}
#include "nccl_faults.h"

int main() {
    const int access = PROT_READ | PROT_WRITE;
    shared = static_cast<Shared*>(mmap(nullptr, sizeof *shared, access, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    for (int n : {1, 2, 4}) job("collectives, a rank per process", n, 1, "", all_collectives);
    for (int n : {1, 2}) job("collectives, two ranks per process", n, 2, "", all_collectives);
    faults();
    return failed != 0;
}
