// Products of matrices by tiles: c (m x n) = a (m x k) b (k x n), one tile of c per block of 256 threads, f32 sums.
//
// The operands are views: they say how V elements that follow one another in memory are found, so that a matrix, its
// transpose and the windows of a convolution feed the same loop. A view has a slow index and a fast one (along which
// elements are neighbours); K_FAST says which of the two is k. Elements outside are zero.
//
// f32 multiplies in ordinary arithmetic. bf16 multiplies on tensor cores where the GPU has them for bf16 (compute 8.0
// and above); elsewhere, and on the CPU, each lane computes the elements that the tensor core would have given it.
#pragma once
#include "block.cuh"

constexpr int TILE_THREADS = 256;

// V neighbours as one 16-byte access.
template <typename T> __device__ __forceinline__ void load_wide(T (&out)[16 / sizeof(T)], const T* at) {
    *(Pack<T>*)out = *(const Pack<T>*)at;
}
template <typename T> __device__ __forceinline__ bool is_wide(const T* at, long long stride) {
    return (unsigned long long)at % 16 == 0 && stride % (16 / (int)sizeof(T)) == 0;
}

// Element (s, f) is at[s * stride + f].
template <typename T, bool KFast> struct MatrixView {
    static constexpr bool K_FAST = KFast;
    static constexpr int V = 16 / sizeof(T);
    const T* at;
    long long stride;
    int slows, fasts;
    bool wide;
    struct Slow {
        const T* row;  // null outside
    };
    using Fast = int;
    __device__ MatrixView(const T* at, long long stride, int slows, int fasts)
        : at(at), stride(stride), slows(slows), fasts(fasts), wide(is_wide(at, stride)) {}
    __device__ Slow slow(int s) const { return {s < slows ? at + s * stride : nullptr}; }
    __device__ Fast fast(int f) const { return f; }
    __device__ void load(T (&out)[V], Slow slow, Fast f) const {
        if (slow.row && wide && f + V <= fasts) {
            load_wide(out, slow.row + f);
            return;
        }
        for (int v = 0; v < V; ++v) out[v] = slow.row && f + v < fasts ? slow.row[f + v] : from_float<T>(0.0f);
    }
};

// A thread's share of a tile of ROWS x DEPTH elements, on its way from memory to shared memory.
template <typename T, int ROWS, int DEPTH, class View> struct Loader {
    static constexpr int V = View::V;
    static constexpr int COUNT = ROWS * DEPTH / (V * TILE_THREADS);
    static_assert(COUNT * V * TILE_THREADS == ROWS * DEPTH, "every thread loads the same");
    static constexpr int ACROSS = (View::K_FAST ? DEPTH : ROWS) / V;
    const View& view;
    typename View::Slow slow[View::K_FAST ? COUNT : 1];
    typename View::Fast fast[View::K_FAST ? 1 : COUNT];
    alignas(16) T values[COUNT][V];

    __device__ static int row(int i) {
        const int e = threadIdx.x + i * TILE_THREADS;
        return View::K_FAST ? e / ACROSS : e % ACROSS * V;
    }
    __device__ static int k(int i) {
        const int e = threadIdx.x + i * TILE_THREADS;
        return View::K_FAST ? e % ACROSS * V : e / ACROSS;
    }
    __device__ Loader(const View& view, int first_row) : view(view) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            if constexpr (View::K_FAST) slow[i] = view.slow(first_row + row(i));
            else fast[i] = view.fast(first_row + row(i));
        }
    }
    __device__ void load(int first_k) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            if constexpr (View::K_FAST) view.load(values[i], slow[i], view.fast(first_k + k(i)));
            else view.load(values[i], view.slow(first_k + k(i)), fast[i]);
        }
    }
    // put(row, k, value) for every element held.
    template <class Put> __device__ void store(const Put& put) const {
#pragma unroll
        for (int i = 0; i < COUNT; ++i)
#pragma unroll
            for (int v = 0; v < V; ++v)
                put(row(i) + (View::K_FAST ? 0 : v), k(i) + (View::K_FAST ? v : 0), values[i][v]);
    }
};

// c (16 x 8) += a (16 x 16, row-major) b^T (8 x 16, row-major), c in the registers of a warp: lane l holds rows
// l / 4 and l / 4 + 8, columns l % 4 * 2 and the next.
__device__ __forceinline__ void multiply_16x8x16(float (&c)[4], const bf16* a, const bf16* b, int stride) {
    const int group = threadIdx.x % 32 / 4, pair = threadIdx.x % 4 * 2;
#if !defined(EMULATED) && __CUDA_ARCH__ >= 800
    const bf16 *top = a + group * stride + pair, *bottom = top + 8 * stride, *column = b + group * stride + pair;
    const auto two = [](const bf16* at) { return *(const unsigned*)at; };
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(two(top)), "r"(two(bottom)), "r"(two(top + 8)), "r"(two(bottom + 8)), "r"(two(column)),
          "r"(two(column + 8)));
#else
    for (int e = 0; e < 4; ++e) {
        const bf16 *row = a + (group + e / 2 * 8) * stride, *column = b + (pair + e % 2) * stride;
        for (int k = 0; k < 16; ++k) c[e] += to_float(row[k]) * to_float(column[k]);
    }
#endif
}

// What a block does with a tile, by element type.
template <typename T> struct Tile;

template <> struct Tile<float> {
    static constexpr int M = 64, N = 64, K = 16;
    struct Memory {
        alignas(16) float a[K][M + 4];
        alignas(16) float b[K][N + 4];
        __device__ void put_a(int row, int k, float value) { a[k][row] = value; }
        __device__ void put_b(int row, int k, float value) { b[k][row] = value; }
    };
    float sums[4][4] = {};
    __device__ void multiply(const Memory& s) {
        const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            const float4 a = *(const float4*)&s.a[k][row], b = *(const float4*)&s.b[k][column];
            const float left[4] = {a.x, a.y, a.z, a.w}, right[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) sums[i][j] += left[i] * right[j];
        }
    }
    template <class Store> __device__ void store(const Store& store) const {
        const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
        for (int i = 0; i < 4; ++i)
            for (int j = 0; j < 4; ++j) store(row + i, column + j, sums[i][j]);
    }
};

template <> struct Tile<bf16> {
    static constexpr int M = 128, N = 64, K = 32;
    // Rows of 80 bytes: eight rows start in different banks, and stay aligned to 16 bytes.
    static constexpr int STRIDE = K + 8;
    struct Memory {
        alignas(16) bf16 a[M][STRIDE];
        alignas(16) bf16 b[N][STRIDE];
        __device__ void put_a(int row, int k, bf16 value) { a[row][k] = value; }
        __device__ void put_b(int row, int k, bf16 value) { b[row][k] = value; }
    };
    // Eight warps, four down and two across, each 32 x 32: two by four products of 16 x 8.
    float sums[2][4][4] = {};
    __device__ static int row() { return threadIdx.x / 64 * 32; }
    __device__ static int column() { return threadIdx.x / 32 % 2 * 32; }
    __device__ void multiply(const Memory& s) {
#pragma unroll
        for (int k = 0; k < K; k += 16)
#pragma unroll
            for (int i = 0; i < 2; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    multiply_16x8x16(sums[i][j], &s.a[row() + i * 16][k], &s.b[column() + j * 8][k], STRIDE);
    }
    template <class Store> __device__ void store(const Store& store) const {
        const int group = threadIdx.x % 32 / 4, pair = threadIdx.x % 4 * 2;
        for (int i = 0; i < 2; ++i)
            for (int j = 0; j < 4; ++j)
                for (int e = 0; e < 4; ++e)
                    store(row() + i * 16 + group + e / 2 * 8, column() + j * 8 + pair + e % 2, sums[i][j][e]);
    }
};

// Sums over k in [k_begin, k_end) for the block's tile of c (m x n), then store(i, j, sum) for each element of it.
// k_begin is a multiple of 32; k_end too, or it is all of k.
template <typename T, class A, class B, class Store>
__device__ void tile_product(int m, int n, int k_begin, int k_end, const A& a, const B& b, const Store& store) {
    using Shape = Tile<T>;
    using Memory = typename Shape::Memory;
    SHARED(Memory, memory);
    const int row = blockIdx.x * Shape::M, column = blockIdx.y * Shape::N;
    Loader<T, Shape::M, Shape::K, A> left(a, row);
    Loader<T, Shape::N, Shape::K, B> right(b, column);
    Shape tile;
    // A product over nothing is zero, and its views may not be asked where they begin.
    if (k_begin < k_end) {
        left.load(k_begin);
        right.load(k_begin);
    }
    for (int k = k_begin; k < k_end; k += Shape::K) {
        left.store([&](int i, int k, T value) { memory.put_a(i, k, value); });
        right.store([&](int i, int k, T value) { memory.put_b(i, k, value); });
        __syncthreads();
        // The next tile is on its way while this one is multiplied.
        if (k + Shape::K < k_end) {
            left.load(k + Shape::K);
            right.load(k + Shape::K);
        }
        tile.multiply(memory);
        __syncthreads();
    }
    tile.store([&](int i, int j, float sum) {
        if (row + i < m && column + j < n) store(row + i, column + j, sum);
    });
}
