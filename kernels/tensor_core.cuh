// Operations for tensor cores, on GPUs of compute capability 8.0 and above, with an emulation on the CPU lane by lane:
// copies into shared memory that continue while a warp works, matrices in shared memory distributed to the lanes of a
// warp, and products of them.
#pragma once
#include "block.cuh"
#ifndef EMULATED
#include <type_traits>
#endif

#if defined(EMULATED) || __CUDA_ARCH__ >= 800
#define TENSOR_CORES 1
#else
#define TENSOR_CORES 0
#endif

// Products of numbers that are f32 in memory and rounded to tf32 (8 bits of exponent, 10 of mantissa) when multiplied.
struct tf32 {};

template <class Kind> struct StorageOf {
    using Type = Kind;
};
template <> struct StorageOf<tf32> {
    using Type = float;
};
// The type that a product of this kind reads from memory.
template <class Kind> using Storage = typename StorageOf<Kind>::Type;

// The bits of a float rounded to tf32, to the nearest, ties away from zero.
__device__ __forceinline__ unsigned tf32_bits(unsigned bits) {
#if !defined(EMULATED) && __CUDA_ARCH__ >= 800
    unsigned rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(bits)));
    return rounded;
#else
    return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & ~0x1fffu;
#endif
}
// A number as it enters a product of this kind.
template <class Kind> __device__ __forceinline__ float as_operand(Storage<Kind> x) { return to_float(x); }
template <> __device__ __forceinline__ float as_operand<tf32>(float x) {
    return __uint_as_float(tf32_bits(__float_as_uint(x)));
}

// Copies of 16 bytes to shared memory, in groups. On the CPU, a copy happens as late as a GPU may do it: when its group
// is waited for.
class Copies {
#ifdef EMULATED
    struct Copy {
        void* to;
        const void* from;
        int bytes;
    };
    static constexpr int GROUPS = 4, MOST = 8;
    Copy copies[GROUPS][MOST];
    int counts[GROUPS] = {}, closed = 0, done = 0;
#endif

public:
    // Copies 16 bytes from `from`, or zeros if not `there`. `from` must be a valid address, aligned to 16 bytes, in
    // either case.
    template <typename T> __device__ __forceinline__ void copy(T* to, const T* from, bool there) {
#ifdef EMULATED
        copies[closed % GROUPS][counts[closed % GROUPS]++] = {to, from, there ? 16 : 0};
#elif TENSOR_CORES
        const unsigned target = (unsigned)__cvta_generic_to_shared(to);
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(from), "r"(there ? 16 : 0)
                     : "memory");
#else
        *(uint4*)to = there ? *(const uint4*)from : uint4{0, 0, 0, 0};
#endif
    }
    // Ends a group, which may be empty.
    __device__ __forceinline__ void close() {
#ifdef EMULATED
        ++closed;
        counts[closed % GROUPS] = 0;
#elif TENSOR_CORES
        asm volatile("cp.async.commit_group;" ::: "memory");
#endif
    }
    // Waits for all groups of this thread except the last N.
    template <int N> __device__ __forceinline__ void wait() {
#ifdef EMULATED
        for (; closed - done > N; ++done)
            for (int i = 0; i < counts[done % GROUPS]; ++i) {
                const Copy& copy = copies[done % GROUPS][i];
                memset(copy.to, 0, 16);
                memcpy(copy.to, copy.from, copy.bytes);
            }
#elif TENSOR_CORES
        asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
    }
};

#if TENSOR_CORES
// Loads four matrices of 8 rows of 16 bytes from shared memory. Lane l supplies the address of row l % 8 of matrix l /
// 8. From each matrix, it receives the 4 bytes from byte 4 (l % 4) on in row l / 4 or, if transposed, the 2-byte
// elements in column l / 4 of rows 2 (l % 4) and 2 (l % 4) + 1.
template <bool Transposed> __device__ __forceinline__ void load_matrices(unsigned (&out)[4], const void* row) {
#ifdef EMULATED
    emu::exchange(~0u, (uint64_t)row, __FILE__, __LINE__);
    const unsigned lane = emu::here.warp_lane;
    for (unsigned matrix = 0; matrix < 4; ++matrix) {
        const auto at = [&](unsigned row) {
            uint64_t address = 0;
            emu::slot(matrix * 8 + row, &address);
            return (const char*)address;
        };
        if (Transposed) {
            uint16_t low, high;
            memcpy(&low, at(lane % 4 * 2) + lane / 4 * 2, 2);
            memcpy(&high, at(lane % 4 * 2 + 1) + lane / 4 * 2, 2);
            out[matrix] = low | unsigned(high) << 16;
        } else {
            memcpy(&out[matrix], at(lane / 4) + lane % 4 * 4, 4);
        }
    }
#else
    const unsigned address = (unsigned)__cvta_generic_to_shared(row);
    if constexpr (Transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                     : "r"(address)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                     : "r"(address)
                     : "memory");
#endif
}

// A warp's operands of a product of M x N fragments: a is 16 M x 32 bytes, b^T is 8 N x 32 bytes. Lane l holds bytes 4
// (l % 4) .. of 16 bytes of row l / 4: in a fragment of a, first of the upper 8 rows, then of the lower, then of both
// for the other 16 bytes.
template <int M, int N> struct Operands {
    unsigned a[M][4], b[N][2];
};

#ifdef EMULATED
// Unpacks 4 bytes: two numbers in bf16, or one in tf32.
template <class Kind> inline void unpack(float* to, unsigned bits) {
    if constexpr (sizeof(Storage<Kind>) == 2) {
        to[0] = __uint_as_float(bits << 16);
        to[1] = __uint_as_float(bits & 0xffff0000u);
    } else {
        to[0] = __uint_as_float(bits);
    }
}
#endif

// sums += a b. Of each 16 x 8 fragment of sums, lane l holds rows l / 4 and l / 4 + 8, columns l % 4 * 2 and the next.
template <class Kind, int M, int N>
__device__ __forceinline__ void multiply_fragments(float (&sums)[M][N][4], const Operands<M, N>& own) {
#ifdef EMULATED
    constexpr int K = 32 / sizeof(Storage<Kind>), PER_LANE = K / 8;
    static_assert(PER_LANE == 1 || PER_LANE == 2, "tf32 or bf16");
    emu::exchange(~0u, (uint64_t)&own, __FILE__, __LINE__);
    const unsigned lane = emu::here.warp_lane;
    float a[2 * M][K], b[K][2 * N];
    for (unsigned quarter = 0; quarter < 4; ++quarter) {
        const auto at = [&](unsigned row) -> const Operands<M, N>& {
            uint64_t address = 0;
            emu::slot(row * 4 + quarter, &address);
            return *(const Operands<M, N>*)address;
        };
        const Operands<M, N>& rows = at(lane / 4);
        for (int i = 0; i < M; ++i)
            for (int r = 0; r < 4; ++r)
                unpack<Kind>(&a[2 * i + r % 2][r / 2 * (K / 2) + quarter * PER_LANE], rows.a[i][r]);
        for (int j = 0; j < N; ++j)
            for (int e = 0; e < 2; ++e)
                for (int r = 0; r < 2; ++r) {
                    float two[2];
                    unpack<Kind>(two, at(lane % 4 * 2 + e).b[j][r]);
                    for (int k = 0; k < PER_LANE; ++k)
                        b[r * (K / 2) + quarter * PER_LANE + k][2 * j + e] = two[k];
                }
    }
    // The operands must remain until every lane has read them.
    emu::exchange(~0u, 0, __FILE__, __LINE__);
    for (int k = 0; k < K; ++k)
        for (int i = 0; i < 2 * M; ++i)
            for (int j = 0; j < 2 * N; ++j) sums[i / 2][j / 2][i % 2 * 2 + j % 2] += a[i][k] * b[k][j];
#else
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
        for (int j = 0; j < N; ++j) {
            float(&c)[4] = sums[i][j];
            const unsigned(&a)[4] = own.a[i];
            const unsigned(&b)[2] = own.b[j];
            if constexpr (sizeof(Storage<Kind>) == 2)
                asm volatile(
                    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                    "{%8, %9}, {%0, %1, %2, %3};"
                    : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
            else
                asm volatile(
                    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                    "{%8, %9}, {%0, %1, %2, %3};"
                    : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
        }
#endif
}
#endif
