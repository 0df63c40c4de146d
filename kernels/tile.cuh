// Products of matrices by tiles: c (m x n) = a (m x k) b (k x n), one tile of c per block of 256 threads, f32 sums in the
// order of k. Tiles are LARGE x LARGE or SMALL x SMALL, as the grid says.
//
// The operands are views: they say how V elements that follow one another in memory are found, so that a matrix, its
// transpose and the windows of a convolution feed the same loop. A view has a slow index and a fast one (along which
// elements are neighbours); K_FAST says which of the two is k. Elements outside are zero.
//
// A kind of product is float (ordinary arithmetic), bf16 or tf32 (tensor cores where the GPU has them for these: compute
// 8.0 and above; elsewhere ordinary arithmetic).
#pragma once
#include "tensor_core.cuh"

constexpr int TILE_THREADS = 256;
// Rows and columns of a tile: src/layers/parts.rs makes the grids.
constexpr int LARGE = 128, SMALL = 64;
// Slices of k in shared memory: one is multiplied while the others are on their way. Three of a large tile are the 48 KiB
// that a block may have without asking.
constexpr int STAGES = 3;

template <typename T> __device__ __forceinline__ bool is_wide(const T* at, long long stride) {
    return (unsigned long long)at % 16 == 0 && stride % (16 / (int)sizeof(T)) == 0;
}

// V neighbours in memory: the first `count` are there, the others are zero.
template <typename T> struct Chunk {
    const T* at;
    int count;
};

// Element (s, f) is at[s * stride + f].
template <typename T, bool KFast> struct MatrixView {
    static constexpr bool K_FAST = KFast;
    static constexpr int V = 16 / sizeof(T);
    const T* at;
    long long stride;
    int slows, fasts;
    bool wide;  // chunks are aligned
    using Slow = int;
    using Fast = int;
    __device__ MatrixView(const T* at, long long stride, int slows, int fasts)
        : at(at), stride(stride), slows(slows), fasts(fasts), wide(is_wide(at, stride)) {}
    __device__ Slow slow(int s) const { return s; }
    __device__ Fast fast(int f) const { return f; }
    __device__ Chunk<T> chunk(Slow s, Fast f) const {
        if (s >= slows || f >= fasts) return {at, 0};
        return {at + s * stride + f, min(V, fasts - f)};
    }
    // Where chunks are not aligned.
    __device__ void load(T* out, Slow s, Fast f) const {
#pragma unroll
        for (int v = 0; v < V; ++v)
            out[v] = s < slows && f + v < fasts ? at[s * stride + f + v] : from_float<T>(0.0f);
    }
};

// Where a product goes: row i begins at line(i), and lines are an even number of elements apart where `paired`, so that two
// neighbours are one access.
template <typename T> struct Rows {
    using Element = T;
    T* at;
    long long stride;
    bool paired;
    __device__ Rows(T* at, long long stride)
        : at(at), stride(stride), paired((unsigned long long)at % (2 * sizeof(T)) == 0 && stride % 2 == 0) {}
    __device__ T* line(int row) const { return at + row * stride; }
};
template <typename T> struct alignas(2 * sizeof(T)) Pair {
    T first, second;
};

// A slice of an operand in shared memory: ROWS x 64 bytes, chunks of 16 bytes along k or along the rows, as in memory.
// Chunks change places so that eight lanes which read one column of chunks meet eight different groups of banks.
template <typename T, int ROWS, bool KFast> struct Slice {
    static constexpr int V = 16 / sizeof(T), K = 64 / sizeof(T);
    __device__ static __forceinline__ int offset(int row, int k) {
        if constexpr (KFast) return row * K + ((k / V) ^ (row / 2 & 3)) * V + k % V;
        const int twist = sizeof(T) == 2 ? k & 7 : (k & 3) * 2;
        return k * ROWS + ((row / V) ^ twist) * V + row % V;
    }
};

// A thread's share of the slices of an operand: COUNT chunks in one column of chunks, STEP rows (or ks) apart.
template <typename T, int ROWS, class View> struct Loader {
    using Layout = Slice<T, ROWS, View::K_FAST>;
    static constexpr int V = View::V, K = Layout::K;
    static constexpr int ACROSS = (View::K_FAST ? K : ROWS) / V, STEP = TILE_THREADS / ACROSS;
    static constexpr int COUNT = ROWS * K / (V * TILE_THREADS);
    const View& view;
    int along, begin;
    typename View::Slow slow[View::K_FAST ? COUNT : 1];
    typename View::Fast fast;

    __device__ Loader(const View& view, int first_row)
        : view(view), along(threadIdx.x % ACROSS * V), begin(threadIdx.x / ACROSS) {
        if constexpr (View::K_FAST) {
#pragma unroll
            for (int i = 0; i < COUNT; ++i) slow[i] = view.slow(first_row + begin + i * STEP);
        } else {
            fast = view.fast(first_row + along);
        }
    }
    __device__ __forceinline__ void load(Copies& copies, T* slice, int first_k) {
        if constexpr (View::K_FAST) fast = view.fast(first_k + along);
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            const int at = begin + i * STEP;
            T* to = slice + (View::K_FAST ? Layout::offset(at, along) : Layout::offset(along, at));
            if constexpr (!View::K_FAST) slow[0] = view.slow(first_k + at);
            const auto& s = slow[View::K_FAST ? i : 0];
            if (view.wide) {
                const Chunk<T> chunk = view.chunk(s, fast);
                copies.copy(to, chunk.at, chunk.count);
            } else {
                view.load(to, s, fast);
            }
        }
    }
};

// Ordinary arithmetic: thread (t / 16, t % 16) of 16 x 16 makes ROWS / 16 x COLUMNS / 16 sums.
template <class Kind, int ROWS, int COLUMNS, bool AKFast, bool BKFast> struct PlainTile {
    using T = Storage<Kind>;
    static constexpr int V = 16 / sizeof(T), K = 64 / sizeof(T), M = ROWS / 16, N = COLUMNS / 16;
    float sums[M][N] = {};

    // Which of the rows (columns) of an operand are a thread's: those that it reads without conflict of banks.
    template <int SIZE, bool KFast> struct Share {
        static constexpr int RUN = KFast ? 1 : V < SIZE / 16 ? V : SIZE / 16;
        __device__ static __forceinline__ int place(int thread, int i) {
            return i / RUN * 16 * RUN + thread * RUN + i % RUN;
        }
        // Values of rows i .. i + COUNT at V ks.
        template <int COUNT>
        __device__ static __forceinline__ void read(float (&out)[COUNT][V], const T* slice, int thread, int i, int k) {
            using Layout = Slice<T, SIZE, KFast>;
            if constexpr (KFast) {
#pragma unroll
                for (int row = 0; row < COUNT; ++row) {
                    const Pack<T> pack = *(const Pack<T>*)(slice + Layout::offset(place(thread, i + row), k));
#pragma unroll
                    for (int v = 0; v < V; ++v) out[row][v] = as_operand<Kind>(pack.at[v]);
                }
            } else {
                struct alignas(RUN * sizeof(T)) Run {
                    T at[RUN];
                };
#pragma unroll
                for (int v = 0; v < V; ++v)
#pragma unroll
                    for (int row = 0; row < COUNT; row += RUN) {
                        const Run run = *(const Run*)(slice + Layout::offset(place(thread, i + row), k + v));
#pragma unroll
                        for (int r = 0; r < RUN; ++r) out[row + r][v] = as_operand<Kind>(run.at[r]);
                    }
            }
        }
    };
    using Left = Share<ROWS, AKFast>;
    using Right = Share<COLUMNS, BKFast>;

    __device__ __forceinline__ void multiply(const T* a, const T* b) {
        constexpr int RUN = Left::RUN;
        static_assert(M % RUN == 0 && N % Right::RUN == 0, "whole runs");
        // Unrolled, values of several ks would be held, more than the 128 registers of two blocks on a multiprocessor.
#pragma unroll 1
        for (int k = 0; k < K; k += V) {
            float right[N][V];
            Right::template read<N>(right, b, threadIdx.x % 16, 0, k);
#pragma unroll
            for (int i = 0; i < M; i += RUN) {
                float left[RUN][V];
                Left::template read<RUN>(left, a, threadIdx.x / 16, i, k);
#pragma unroll
                for (int v = 0; v < V; ++v)
#pragma unroll
                    for (int r = 0; r < RUN; ++r)
#pragma unroll
                        for (int j = 0; j < N; ++j) sums[i + r][j] += left[r][v] * right[j][v];
            }
        }
    }
    // Adds terms[column] to every row.
    __device__ __forceinline__ void add(const float* terms, int columns) {
#pragma unroll
        for (int j = 0; j < N; ++j) {
            const int column = Right::place(threadIdx.x % 16, j);
            const float term = column < columns ? terms[column] : 0.0f;
#pragma unroll
            for (int i = 0; i < M; ++i) sums[i][j] += term;
        }
    }
    __device__ __forceinline__ void rectify() {
#pragma unroll
        for (int i = 0; i < M; ++i)
#pragma unroll
            for (int j = 0; j < N; ++j) sums[i][j] = rectified(sums[i][j], 1);
    }
    // To the m x n of c that begin at (row, column).
    template <class C>
    __device__ __forceinline__ void store(const C& c, int row, int column, int m, int n) const {
#pragma unroll
        for (int i = 0; i < M; ++i) {
            const int down = row + Left::place(threadIdx.x / 16, i);
            if (down >= m) continue;
            typename C::Element* line = c.line(down);
#pragma unroll
            for (int j = 0; j < N; ++j) {
                const int right = column + Right::place(threadIdx.x % 16, j);
                if (right < n) line[right] = from_float<typename C::Element>(sums[i][j]);
            }
        }
    }
};

#if TENSOR_CORES
// Eight warps, two down and four across, each with fragments of 16 x 8 sums.
template <class Kind, int ROWS, int COLUMNS, bool AKFast, bool BKFast> struct CoreTile {
    using T = Storage<Kind>;
    static constexpr int V = 16 / sizeof(T), K = 64 / sizeof(T), M = ROWS / 2 / 16, N = COLUMNS / 4 / 8;
    static_assert(N % 2 == 0, "fragments of b are read two at a time");
    float sums[M][N][4] = {};
    __device__ static __forceinline__ int row() { return threadIdx.x / 32 / 4 * (ROWS / 2); }
    __device__ static __forceinline__ int column() { return threadIdx.x / 32 % 4 * (COLUMNS / 4); }

    // Four matrices of 8 rows x 16 bytes, number q at (row + down (q), k + right (q)).
    template <int SIZE, bool KFast, class Down, class Right>
    __device__ static __forceinline__ void read(unsigned (&out)[4], const T* slice, int row, int k, const Down& down,
                                                const Right& right) {
        using Layout = Slice<T, SIZE, KFast>;
        const int lane = threadIdx.x % 32, matrix = lane / 8, line = lane % 8;
        if constexpr (KFast) {
            load_matrices<false>(out, slice + Layout::offset(row + down(matrix) + line, k + right(matrix)));
        } else if constexpr (sizeof(T) == 2) {
            load_matrices<true>(out, slice + Layout::offset(row + down(matrix), k + right(matrix) + line));
        } else {
#pragma unroll
            for (int q = 0; q < 4; ++q)
                out[q] = __float_as_uint(slice[Layout::offset(row + down(q) + lane / 4, k + right(q) + lane % 4)]);
        }
        if constexpr (sizeof(T) == 4)
#pragma unroll
            for (int q = 0; q < 4; ++q) out[q] = tf32_bits(out[q]);
    }
    __device__ __forceinline__ void multiply(const T* a, const T* b) {
        const auto first = [](int q) { return q % 2; };
        const auto second = [](int q) { return q / 2; };
        // Single elements of 4 bytes have an address each: unrolled, more than there are registers.
        constexpr int UNROLLED = sizeof(T) == 4 && !AKFast && !BKFast ? 1 : 2;
#pragma unroll UNROLLED
        for (int k = 0; k < K; k += 2 * V) {
            Operands<M, N> operands;
#pragma unroll
            for (int i = 0; i < M; ++i)
                read<ROWS, AKFast>(operands.a[i], a, row() + i * 16, k, [&](int q) { return first(q) * 8; },
                                   [&](int q) { return second(q) * V; });
#pragma unroll
            for (int j = 0; j < N; j += 2) {
                unsigned both[4];
                read<COLUMNS, BKFast>(both, b, column() + j * 8, k, [&](int q) { return second(q) * 8; },
                                      [&](int q) { return first(q) * V; });
#pragma unroll
                for (int q = 0; q < 4; ++q) operands.b[j + q / 2][q % 2] = both[q];
            }
            multiply_fragments<Kind>(sums, operands);
        }
    }
    __device__ __forceinline__ void add(const float* terms, int columns) {
#pragma unroll
        for (int j = 0; j < N; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const int place = column() + j * 8 + threadIdx.x % 4 * 2 + e;
                const float term = place < columns ? terms[place] : 0.0f;
#pragma unroll
                for (int i = 0; i < M; ++i) {
                    sums[i][j][e] += term;
                    sums[i][j][e + 2] += term;
                }
            }
    }
    __device__ __forceinline__ void rectify() {
#pragma unroll
        for (int i = 0; i < M; ++i)
#pragma unroll
            for (int j = 0; j < N; ++j)
                for (int e = 0; e < 4; ++e) sums[i][j][e] = rectified(sums[i][j][e], 1);
    }
    template <class C>
    __device__ __forceinline__ void store(const C& c, int first_row, int first_column, int m, int n) const {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < M; ++i)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int down = first_row + row() + i * 16 + half * 8 + lane / 4;
                if (down >= m) continue;
                typename C::Element* line = c.line(down);
#pragma unroll
                for (int j = 0; j < N; ++j) {
                    const int right = first_column + column() + j * 8 + lane % 4 * 2;
                    const float *two = &sums[i][j][half * 2];
                    if (c.paired && right + 1 < n) {
                        *(Pair<typename C::Element>*)(line + right) = {from_float<typename C::Element>(two[0]), from_float<typename C::Element>(two[1])};
                    } else {
                        if (right < n) line[right] = from_float<typename C::Element>(two[0]);
                        if (right + 1 < n) line[right + 1] = from_float<typename C::Element>(two[1]);
                    }
                }
            }
    }
};
#endif

// What is done to a sum: terms[column] is added unless terms is null, then max(sum, 0) is taken when relu is not 0.
struct Finish {
    const float* terms = nullptr;
    int relu = 0;
};

struct alignas(16) TileMemory {
    char bytes[STAGES * 2 * LARGE * 64];
};

template <class Kind, int SIDE, class A, class B, class C>
__device__ __forceinline__ void sized_product(TileMemory& memory, int block, int m, int n, int k_begin, int k_end, const A& a,
                                              const B& b, const Finish& finish, const C& c) {
    using T = Storage<Kind>;
    constexpr int K = 64 / sizeof(T), SLICE = SIDE * K;
#if TENSOR_CORES
    constexpr bool PLAIN = std::is_same<Kind, float>::value;
    using Tile = typename std::conditional<PLAIN, PlainTile<Kind, SIDE, SIDE, A::K_FAST, B::K_FAST>,
                                           CoreTile<Kind, SIDE, SIDE, A::K_FAST, B::K_FAST>>::type;
#else
    using Tile = PlainTile<Kind, SIDE, SIDE, A::K_FAST, B::K_FAST>;
#endif
    T *const lefts = (T*)memory.bytes, *const rights = lefts + STAGES * SLICE;
    const int row = block * SIDE, column = blockIdx.y * SIDE;
    Loader<T, SIDE, A> left(a, row);
    Loader<T, SIDE, B> right(b, column);
    Copies copies;
    Tile tile;
    // A group is closed even when nothing is left to load, so that their number tells which slice is there.
    const auto load = [&](int stage, int k) {
        if (k < k_end) {
            left.load(copies, lefts + stage * SLICE, k);
            right.load(copies, rights + stage * SLICE, k);
        }
        copies.close();
    };
    for (int stage = 0; stage < STAGES - 1; ++stage) load(stage, k_begin + stage * K);
    int stage = 0;
    for (int k = k_begin; k < k_end; k += K) {
        copies.template wait<STAGES - 2>();
        // Every thread's copies of this slice are there, and every thread is done with the slice before it, whose place the
        // next one takes.
        __syncthreads();
        load(stage == 0 ? STAGES - 1 : stage - 1, k + (STAGES - 1) * K);
        tile.multiply(lefts + stage * SLICE, rights + stage * SLICE);
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    }
    if (finish.terms) tile.add(finish.terms + column, n - column);
    if (finish.relu) tile.rectify();
    tile.store(c, row, column, m, n);
}

// The side of the tiles of n columns that the launch asks for. Large ones are only used for more than SMALL columns.
__device__ __forceinline__ int tile_side(int n) {
    return (int)gridDim.y == (n + SMALL - 1) / SMALL ? SMALL : LARGE;
}

// Sums over k in [k_begin, k_end) for a tile of c (m x n), the block-th down and the blockIdx.y-th across, finished. k_begin is a multiple of 32; k_end too, or it is all of k.
template <class Kind, class A, class B, class C>
__device__ __forceinline__ void tile_product(int block, int m, int n, int k_begin, int k_end, const A& a, const B& b,
                                             const Finish& finish, const C& c) {
    SHARED(TileMemory, memory);
    if (tile_side(n) == SMALL) sized_product<Kind, SMALL>(memory, block, m, n, k_begin, k_end, a, b, finish, c);
    else sized_product<Kind, LARGE>(memory, block, m, n, k_begin, k_end, a, b, finish, c);
}
