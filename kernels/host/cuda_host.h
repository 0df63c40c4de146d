// CUDA's built-ins in C++20: with this header, a kernel file compiles for the CPU. One operating-system thread runs one
// block at a time; the threads of the block are fibers that switch at barriers and warp operations.
#pragma once
#define EMULATED 1

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __launch_bounds__(...)
// Shared memory is declared through SHARED and DYNAMIC_SHARED of kernels/block.cuh, so that it can be filled with
// NaN before each block and fenced by AddressSanitizer.
#define __shared__ static_assert(false, "declare shared memory with SHARED(type, name)");
#define SHARED(type, name)      \
    static char name##_key;     \
    type& name = *static_cast<std::remove_reference_t<type>*>(emu::shared(&name##_key, sizeof(type)))
#define DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(emu::dynamic_shared())

struct uint3 { unsigned x, y, z; };
struct alignas(8) int2 { int x, y; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace emu {

struct Lane;  // a thread of the running block

// The state of the running thread. It is plain and thread-local without an initialiser, so that reading it costs one
// load.
struct Here {
    Lane* lane;
    uint3 thread;
    unsigned warp_lane;
    uint3 block, block_size, grid_size;
};
extern __thread Here here __attribute__((tls_model("initial-exec")));

void* shared(const void* key, size_t bytes);
void* dynamic_shared();
void barrier(const char* file, int line);
// Waits for the lanes of `mask`, each of which passes a value; afterwards, slot(i) is the value of lane i.
void exchange(unsigned mask, uint64_t value, const char* file, int line);
// Reads the value that a lane passed to the last exchange; returns false if the lane did not take part in it.
bool slot(unsigned lane, uint64_t* value);

using Call = void (*)(void** args);
struct Entry {
    const char* name;
    Call call;
    const Entry* next;
    Entry(const char* name, Call call);
};

// Calls a kernel with its arguments in an array, as for cuLaunchKernel.
template <auto Kernel> struct Caller;
template <class... Args, void (*Kernel)(Args...)> struct Caller<Kernel> {
    template <size_t... I> static void spread(void** args, std::index_sequence<I...>) {
        Kernel(*static_cast<std::remove_cv_t<Args>*>(args[I])...);
    }
    static void call(void** args) { spread(args, std::index_sequence_for<Args...>{}); }
};

// Shuffles: `source` is the lane to read; if `inside` is false, a lane keeps its own value. The value of a lane that
// does not take part is undefined on a GPU, and all ones (NaN) here.
template <class T>
inline T shuffle(unsigned mask, T value, unsigned source, bool inside, const char* file, int line) {
    static_assert(sizeof(T) <= 8, "shuffles move at most eight bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    exchange(mask, bits, file, line);
    if (!inside) return value;
    if (!slot(source, &bits)) bits = ~uint64_t(0);
    memcpy(&value, &bits, sizeof(T));
    return value;
}

}  // namespace emu

#define EMU_KERNEL(kernel) static const emu::Entry emu_entry_##kernel(#kernel, &emu::Caller<&kernel>::call);
#define EMU_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

#define threadIdx (emu::here.thread)
#define blockIdx (emu::here.block)
#define blockDim (emu::here.block_size)
#define gridDim (emu::here.grid_size)
constexpr int warpSize = 32;

inline void __syncthreads(EMU_PLACE) { emu::barrier(file, line); }
inline void __syncwarp(unsigned mask = ~0u, EMU_PLACE) { emu::exchange(mask, 0, file, line); }
template <class T> inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMU_PLACE) {
    const unsigned base = emu::here.warp_lane & ~(width - 1);
    return emu::shuffle(mask, value, base + (source & (width - 1)), true, file, line);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, EMU_PLACE) {
    const unsigned lane = emu::here.warp_lane, source = lane ^ bits;
    return emu::shuffle(mask, value, source, source / width <= lane / width, file, line);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, EMU_PLACE) {
    const unsigned lane = emu::here.warp_lane;
    return emu::shuffle(mask, value, lane + by, (lane & (width - 1)) + by < unsigned(width), file, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, EMU_PLACE) {
    emu::exchange(mask, predicate != 0, file, line);
    unsigned votes = 0;
    for (unsigned lane = 0; lane < 32; ++lane) {
        uint64_t vote = 0;
        if ((mask >> lane & 1) && emu::slot(lane, &vote) && vote) votes |= 1u << lane;
    }
    return votes;
}

// Blocks may run on several operating-system threads, so these are real atomics.
template <class T> inline T atomicAdd(T* at, std::type_identity_t<T> value) {
    static_assert(std::is_integral_v<T>, "the order of float atomics is not fixed; reduce in a fixed order instead");
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
template <class T> inline T atomicMax(T* at, std::type_identity_t<T> value) {
    static_assert(std::is_integral_v<T>, "atomicMax supports only integers");
    T old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (old < value && !__atomic_compare_exchange_n(at, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    return old;
}

using std::max;
using std::min;
inline int __float_as_int(float x) { int bits; memcpy(&bits, &x, 4); return bits; }
inline float __int_as_float(int bits) { float x; memcpy(&x, &bits, 4); return x; }
inline unsigned __float_as_uint(float x) { unsigned bits; memcpy(&bits, &x, 4); return bits; }
inline float __uint_as_float(unsigned bits) { float x; memcpy(&x, &bits, 4); return x; }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
// The compiler runs with -ffp-contract=off, so no product is contracted into a sum.
inline float __fmul_rn(float a, float b) { return a * b; }

// bfloat16: storage and conversions, rounding to nearest even; every NaN becomes the one that CUDA returns.
struct alignas(2) __nv_bfloat16 { uint16_t bits; };
inline float __bfloat162float(__nv_bfloat16 x) { return __uint_as_float(unsigned(x.bits) << 16); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
    const unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
    return {uint16_t((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
}
