// The emulated device: runs blocks of a kernel on the calling thread, with the block's threads as fibers.
//
// It detects barriers and warp operations that not all threads reach, lanes that disagree on a mask, and masks with
// lanes that have exited. If a barrier is missing, different orders of threads give different results.

// The standard headers first: CUDA's macros, such as __noinline__, are also attributes in them.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <sys/mman.h>

#include "cuda_host.h"

#if defined(__SANITIZE_ADDRESS__)
#define EMU_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMU_ASAN 1
#endif
#endif
#ifdef EMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__) && !defined(EMU_UCONTEXT)
#define EMU_SWITCH 1
// Saves the callee-saved registers, stores the stack in *from and continues with the stack `to`.
extern "C" void emu_switch(void** from, void* to);
asm(R"(
    .text
    .local emu_switch
    .type emu_switch,@function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emu_switch, .-emu_switch
)");
#else
#include <ucontext.h>
#endif

namespace emu {

__thread Here here __attribute__((tls_model("initial-exec")));

enum class State { Ready, AtBarrier, InWarp, Done };

struct Warp {
    uint64_t slots[2][32];
    unsigned parts[2];  // lanes that took part in the exchange
    unsigned present, exited, wanted, arrived, round;
};

struct Lane {
    Here here;
    Warp* warp;
    State state;
    unsigned read;  // which of the warp's two rounds of slots this lane reads
    const char* file;
    int line;
    char* stack;
#ifdef EMU_SWITCH
    void* sp;
#else
    ucontext_t context;
#endif
    void* fake;
};

struct Shared {
    const void* key;
    void* memory;
    size_t bytes;
    bool filled;
};

constexpr size_t STACK = 128 << 10, GUARD = 4096;

// One per operating-system thread, kept between launches because fresh stacks cost page faults.
struct Block {
    std::vector<Lane> lanes;
    std::vector<Warp> warps;
    std::vector<unsigned> order;
    std::vector<char*> stacks;
    std::vector<Shared> shared;
    void* dynamic = nullptr;
    Call call = nullptr;
    void** args = nullptr;
    std::string error;
#ifdef EMU_SWITCH
    void* scheduler = nullptr;
#else
    ucontext_t scheduler;
#endif
    void* fake = nullptr;
    const void* bottom = nullptr;
    size_t size = 0;
    ~Block() {
        for (char* stack : stacks) munmap(stack, STACK);
    }
};

static thread_local Block* block;

static const Entry* entries = nullptr;
Entry::Entry(const char* name, Call call) : name(name), call(call), next(entries) { entries = this; }

static std::string place(const Lane& lane) {
    char text[512];
    const uint3 b = lane.here.block, t = lane.here.thread;
    snprintf(text, sizeof text, "%s:%d (block %u %u %u, thread %u %u %u)", lane.file ? lane.file : "?", lane.line, b.x,
             b.y, b.z, t.x, t.y, t.z);
    return text;
}

static void leave(bool for_good) {
    Lane& lane = *here.lane;
#ifdef EMU_ASAN
    __sanitizer_start_switch_fiber(for_good ? nullptr : &lane.fake, block->bottom, block->size);
#endif
#ifdef EMU_SWITCH
    emu_switch(&lane.sp, block->scheduler);
#else
    swapcontext(&lane.context, &block->scheduler);
#endif
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(lane.fake, &block->bottom, &block->size);
#endif
}

static void begin() {
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &block->bottom, &block->size);
#endif
    block->call(block->args);
    here.lane->state = State::Done;
    leave(true);
    abort();
}

static void prepare(Lane& lane) {
    if (block->stacks.empty()) {
        const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        void* fresh = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, flags, -1, 0);
        if (fresh == MAP_FAILED || mprotect(fresh, GUARD, PROT_NONE) != 0) {
            fputs("the emulated device cannot allocate stacks for its threads\n", stderr);
            abort();
        }
        block->stacks.push_back(static_cast<char*>(fresh));
    }
    lane.stack = block->stacks.back();
    block->stacks.pop_back();
    lane.fake = nullptr;
#ifdef EMU_ASAN
    ASAN_UNPOISON_MEMORY_REGION(lane.stack + GUARD, STACK - GUARD);
#endif
#ifdef EMU_SWITCH
    void** top = reinterpret_cast<void**>(lane.stack + STACK);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(&begin);
    top -= 6;  // the registers that emu_switch restores
    lane.sp = top;
#else
    getcontext(&lane.context);
    lane.context.uc_stack.ss_sp = lane.stack;
    lane.context.uc_stack.ss_size = STACK;
    lane.context.uc_link = nullptr;
    makecontext(&lane.context, begin, 0);
#endif
}

// Runs a lane until it waits or ends.
static void resume(Lane& lane) {
    if (!lane.stack) prepare(lane);
    here = lane.here;
#ifdef EMU_ASAN
    __sanitizer_start_switch_fiber(&block->fake, lane.stack, STACK);
#endif
#ifdef EMU_SWITCH
    emu_switch(&block->scheduler, lane.sp);
#else
    swapcontext(&block->scheduler, &lane.context);
#endif
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(block->fake, nullptr, nullptr);
#endif
    if (lane.state == State::Done) {
        block->stacks.push_back(lane.stack);
        lane.stack = nullptr;
        lane.warp->exited |= 1u << lane.here.warp_lane;
    }
}

[[noreturn]] static void fail(const char* what, const char* file, int line) {
    Lane& lane = *here.lane;
    lane.file = file;
    lane.line = line;
    block->error = std::string(what) + ": " + place(lane);
    for (;;) leave(false);
}

void barrier(const char* file, int line) {
    Lane& lane = *here.lane;
    lane.file = file;
    lane.line = line;
    lane.state = State::AtBarrier;
    leave(false);
}

void exchange(unsigned mask, uint64_t value, const char* file, int line) {
    Lane& lane = *here.lane;
    Warp& warp = *lane.warp;
    const unsigned self = 1u << here.warp_lane;
    mask &= warp.present;
    if (!(mask & self)) fail("a lane is not in the mask of its own warp operation", file, line);
    if (mask & warp.exited) fail("a warp operation names a lane that has exited", file, line);
    if (warp.arrived == 0) warp.wanted = mask;
    if (warp.wanted != mask) fail("lanes of one warp disagree on the mask of a warp operation", file, line);
    const unsigned side = warp.round & 1;
    warp.slots[side][here.warp_lane] = value;
    lane.read = side;
    warp.arrived |= self;
    if (warp.arrived == mask) {
        // The other side is free: a lane that still reads it would not have arrived here.
        warp.parts[side] = mask;
        warp.arrived = 0;
        ++warp.round;
        Lane* first = &lane - here.warp_lane;
        for (unsigned i = 0; i < 32; ++i)
            if ((mask >> i & 1) && first[i].state == State::InWarp) first[i].state = State::Ready;
        return;
    }
    lane.file = file;
    lane.line = line;
    lane.state = State::InWarp;
    leave(false);
}

bool slot(unsigned lane, uint64_t* value) {
    const Warp& warp = *here.lane->warp;
    const unsigned side = here.lane->read;
    if (lane >= 32 || !(warp.parts[side] >> lane & 1)) return false;
    *value = warp.slots[side][lane];
    return true;
}

void* shared(const void* key, size_t bytes) {
    for (Shared& s : block->shared) {
        if (s.key != key) continue;
        if (!s.filled) memset(s.memory, 0xff, s.bytes);
        s.filled = true;
        return s.memory;
    }
    void* memory = nullptr;
    if (posix_memalign(&memory, 16, bytes) != 0) abort();
    memset(memory, 0xff, bytes);
    block->shared.push_back({key, memory, bytes, true});
    return memory;
}

void* dynamic_shared() { return block->dynamic; }

enum Order { FORWARD = 0, REVERSE = 1, RANDOM = 2 };

static void arrange(int order, uint64_t& seed) {
    if (order != RANDOM) return;
    for (size_t i = block->order.size() - 1; i > 0; --i) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        std::swap(block->order[i], block->order[seed % (i + 1)]);
    }
}

// Opens the barrier, or reports why no thread can continue.
static bool open_barrier() {
    const Lane *first = nullptr, *other = nullptr, *in_warp = nullptr, *gone = nullptr;
    for (const Lane& lane : block->lanes) {
        if (lane.state == State::InWarp && !in_warp) in_warp = &lane;
        if (lane.state == State::Done && !gone) gone = &lane;
        if (lane.state != State::AtBarrier) continue;
        if (!first) first = &lane;
        if (lane.line != first->line || lane.file != first->file) other = &lane;
    }
    if (in_warp) {
        block->error = "deadlock: a warp operation waits for lanes that never arrive: " + place(*in_warp);
        if (first) block->error += "; others wait at __syncthreads: " + place(*first);
    } else if (other) {
        block->error = "threads of a block wait at different __syncthreads: " + place(*first) + " and " + place(*other);
    } else if (gone) {
        block->error = "a __syncthreads waits for threads that have exited: " + place(*first);
    }
    if (!block->error.empty()) return false;
    for (Lane& lane : block->lanes) lane.state = State::Ready;
    return true;
}

static bool run_block(int order, uint64_t seed) {
    for (Warp& warp : block->warps) warp.arrived = warp.exited = warp.round = 0;
    for (Lane& lane : block->lanes) lane.state = State::Ready;
    for (Shared& s : block->shared) s.filled = false;
    size_t done = 0;
    while (done < block->lanes.size()) {
        bool moved = false;
        arrange(order, seed);
        for (unsigned i : block->order) {
            Lane& lane = block->lanes[i];
            if (lane.state != State::Ready) continue;
            resume(lane);
            moved = true;
            if (!block->error.empty()) return false;
            if (lane.state == State::Done) ++done;
        }
        if (!moved && !open_barrier()) return false;
    }
    return true;
}

static void set_up(const unsigned* grid, const unsigned* size, int order) {
    const size_t threads = size_t(size[0]) * size[1] * size[2];
    block->lanes.assign(threads, Lane{});
    block->warps.assign((threads + 31) / 32, Warp{});
    block->order.resize(threads);
    block->error.clear();
    for (size_t i = 0; i < threads; ++i) {
        Lane& lane = block->lanes[i];
        lane.here.lane = &lane;
        lane.here.thread = {unsigned(i % size[0]), unsigned(i / size[0] % size[1]), unsigned(i / size[0] / size[1])};
        lane.here.warp_lane = i % 32;
        lane.here.block_size = {size[0], size[1], size[2]};
        lane.here.grid_size = {grid[0], grid[1], grid[2]};
        lane.warp = &block->warps[i / 32];
        lane.warp->present |= 1u << i % 32;
        block->order[i] = unsigned(order == REVERSE ? threads - 1 - i : i);
    }
}

// Returns the i-th block of the launch in the given order.
static uint64_t pick(uint64_t i, uint64_t blocks, int order) {
    if (order == REVERSE) return blocks - 1 - i;
    return i;
}

}  // namespace emu

// Returns the kernel's handle, or null if there is no kernel of that name.
extern "C" const void* emu_kernel(const char* name) {
    for (const emu::Entry* entry = emu::entries; entry; entry = entry->next)
        if (strcmp(entry->name, name) == 0) return entry;
    return nullptr;
}

// Runs blocks first .. first + count of a launch on this thread; returns 0, or 1 with a message in `error`.
extern "C" int emu_launch(const void* kernel, const unsigned* grid, const unsigned* size, size_t dynamic, void** args,
                          uint64_t first, uint64_t count, int order, uint64_t seed, char* error, size_t error_bytes) {
    using namespace emu;
    static thread_local Block mine;
    block = &mine;
    const uint64_t blocks = uint64_t(grid[0]) * grid[1] * grid[2];
    block->call = static_cast<const Entry*>(kernel)->call;
    block->args = args;
    set_up(grid, size, order);
    if (dynamic && posix_memalign(&block->dynamic, 16, dynamic) != 0) abort();
    bool fine = true;
    for (uint64_t i = first; fine && i < first + count; ++i) {
        const uint64_t at = pick(i, blocks, order);
        const unsigned row = unsigned(at / grid[0] % grid[1]), plane = unsigned(at / grid[0] / grid[1]);
        const uint3 index = {unsigned(at % grid[0]), row, plane};
        for (Lane& lane : block->lanes) lane.here.block = index;
        if (dynamic) memset(block->dynamic, 0xff, dynamic);
        fine = run_block(order, (seed + 1) * 0x9e3779b97f4a7c15u ^ (at + 1));
    }
    for (Lane& lane : block->lanes)
        if (lane.stack) block->stacks.push_back(lane.stack);
    for (Shared& s : block->shared) free(s.memory);
    block->shared.clear();
    free(block->dynamic);
    block->dynamic = nullptr;
    if (!fine) snprintf(error, error_bytes, "%s", block->error.c_str());
    return fine ? 0 : 1;
}
