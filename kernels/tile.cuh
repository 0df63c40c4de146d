// Matrix products in tiles: c (m x n) = a (m x k) b (k x n), with one tile of c per block of TILE_THREADS threads, and
// f32 sums in the order of k. Tiles are LARGE x LARGE or SMALL x SMALL; each kernel has an entry for both.
//
// The operands are views, which locate V consecutive elements in memory, so that a matrix, its transpose and the windows
// of a convolution can use the same loop. A view has a slow index and a fast one (along which elements are neighbours);
// K_FAST is true if the fast one is k. Elements outside are zero.
//
// The kind of a product is float (ordinary arithmetic), bf16 or tf32 (tensor cores on GPUs of compute capability 8.0 and
// above, otherwise ordinary arithmetic).
#pragma once
#include "tensor_core.cuh"

// Four warps feed the tensor cores, so that each has 64 x 64 sums of a large tile. With smaller pieces, the warps would
// read more bytes than shared memory can deliver while the tensor cores multiply (docs/PERFORMANCE.md).
template <class Kind> constexpr int TILE_THREADS = std::is_same<Kind, float>::value ? 256 : 128;
// Rows and columns of a tile. src/layers/split_k.rs computes the grids.
constexpr int LARGE = 128, SMALL = 64;
// Slices of k in shared memory: one is multiplied while the others are being loaded. Three slices of a large tile take
// the 48 KiB that a block may use without opting in to more.
constexpr int STAGES = 3;

template <typename T> __device__ __forceinline__ bool is_wide(const T* at, int stride, int fasts) {
    constexpr int V = 16 / sizeof(T);
    return (unsigned long long)at % 16 == 0 && stride % V == 0 && fasts % V == 0;
}

// V neighbours in memory, or zeros if they are outside.
template <typename T> struct Chunk {
    const T* at;
    bool there;
};

// Element (s, f) is at[s * stride + f]. For rows (of the product) outside, chunks are those of the last row, without a
// test, because their results are never stored. For ks outside, chunks are zero.
template <typename T, bool KFast> struct MatrixView {
    static constexpr bool K_FAST = KFast;
    static constexpr int V = 16 / sizeof(T);
    const T* at;
    int stride, slows, fasts;
    bool wide;  // whether chunks are aligned and whole
    using Slow = int;
    using Fast = int;
    __device__ MatrixView(const T* at, int stride, int slows, int fasts)
        : at(at), stride(stride), slows(slows), fasts(fasts), wide(is_wide(at, stride, fasts)) {}
    __device__ Slow slow(int s) const { return K_FAST ? min(s, slows - 1) : s; }
    __device__ Fast fast(int f) const { return f; }
    __device__ Chunk<T> chunk(Slow s, Fast f) const {
        const long long line = (long long)(K_FAST ? s : min(s, slows - 1)) * stride;
        return {at + (line + min(f, fasts - V)), K_FAST ? f < fasts : s < slows};
    }
    // For chunks that are not aligned.
    __device__ void load(T* out, Slow s, Fast f) const {
#pragma unroll
        for (int v = 0; v < V; ++v)
            out[v] = s < slows && f + v < fasts ? at[(long long)s * stride + f + v] : from_float<T>(0.0f);
    }
};

// The destination of a product: row i begins at line(i). If `paired`, lines are an even number of elements apart, so
// that two neighbours are written in one access.
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

// A slice of an operand in shared memory: ROWS x 64 bytes, in chunks of 16 bytes along k or along the rows, as in
// memory. Chunks are swizzled so that eight lanes that read one column of chunks access eight different groups of
// banks.
template <typename T, int ROWS, bool KFast> struct Slice {
    static constexpr int V = 16 / sizeof(T), K = 64 / sizeof(T);
    // The number of rows (or ks) after which the swizzle repeats.
    static constexpr int PERIOD = KFast || sizeof(T) == 2 ? 8 : 4;
    __device__ static __forceinline__ int offset(int row, int k) {
        if constexpr (KFast) return row * K + ((k / V) ^ (row / 2 & 3)) * V + k % V;
        const int twist = sizeof(T) == 2 ? k & 7 : (k & 3) * 2;
        return k * ROWS + ((row / V) ^ twist) * V + row % V;
    }
};

// A thread's share of the slices of an operand: COUNT chunks in one column of chunks, STEP rows (or ks) apart.
template <typename T, int THREADS, int ROWS, class View> struct Loader {
    using Layout = Slice<T, ROWS, View::K_FAST>;
    static constexpr int V = View::V, K = Layout::K;
    static constexpr int ACROSS = (View::K_FAST ? K : ROWS) / V, STEP = THREADS / ACROSS;
    static constexpr int COUNT = ROWS * K / (V * THREADS);
    static_assert(STEP % Layout::PERIOD == 0, "the chunks of a thread are equally far apart");
    const View& view;
    int along, begin, offset;
    typename View::Slow slow[View::K_FAST ? COUNT : 1];
    typename View::Fast fast;

    __device__ Loader(const View& view, int first_row)
        : view(view), along(threadIdx.x % ACROSS * V), begin(threadIdx.x / ACROSS),
          offset(View::K_FAST ? Layout::offset(begin, along) : Layout::offset(along, begin)) {
        if constexpr (View::K_FAST) {
#pragma unroll
            for (int i = 0; i < COUNT; ++i) slow[i] = view.slow(first_row + begin + i * STEP);
        } else {
            fast = view.fast(first_row + along);
        }
    }
    __device__ __forceinline__ void load(Copies& copies, T* slice, int first_k) {
        if constexpr (View::K_FAST) fast = view.fast(first_k + along);
        const auto each = [&](const auto& f) {
#pragma unroll
            for (int i = 0; i < COUNT; ++i) {
                if constexpr (!View::K_FAST) slow[0] = view.slow(first_k + begin + i * STEP);
                f(slice + offset + i * STEP * (View::K_FAST ? K : ROWS), slow[View::K_FAST ? i : 0]);
            }
        };
        if (view.wide)
            each([&](T* to, const typename View::Slow& s) {
                const Chunk<T> chunk = view.chunk(s, fast);
                copies.copy(to, chunk.at, chunk.there);
            });
        else
            each([&](T* to, const typename View::Slow& s) { view.load(to, s, fast); });
    }
};

// Ordinary arithmetic: thread (t / 16, t % 16) of DOWN x 16 computes ROWS / DOWN x COLUMNS / 16 sums.
template <class Kind, int ROWS, int COLUMNS, bool AKFast, bool BKFast> struct PlainTile {
    using T = Storage<Kind>;
    static constexpr int V = 16 / sizeof(T), K = 64 / sizeof(T), DOWN = TILE_THREADS<Kind> / 16;
    static constexpr int M = ROWS / DOWN, N = COLUMNS / 16;
    float sums[M][N] = {};

    // A thread's share of the rows (columns) of an operand: those that it can read without bank conflicts.
    template <int SIZE, int OWNERS, bool KFast> struct Share {
        static constexpr int RUN = KFast ? 1 : V < SIZE / OWNERS ? V : SIZE / OWNERS;
        __device__ static __forceinline__ int place(int thread, int i) {
            return i / RUN * OWNERS * RUN + thread * RUN + i % RUN;
        }
        // Reads rows i .. i + COUNT at V ks.
        template <int COUNT>
        __device__ static __forceinline__ void read(float (&out)[COUNT][V], const T* slice, int thread, int i, int k) {
            using Layout = Slice<T, SIZE, KFast>;
            if constexpr (KFast) {
#pragma unroll
                for (int row = 0; row < COUNT; ++row) {
                    const Vector<T> vector = *(const Vector<T>*)(slice + Layout::offset(place(thread, i + row), k));
#pragma unroll
                    for (int v = 0; v < V; ++v) out[row][v] = as_operand<Kind>(vector.at[v]);
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
    using Left = Share<ROWS, DOWN, AKFast>;
    using Right = Share<COLUMNS, 16, BKFast>;

    __device__ __forceinline__ void multiply(const T* a, const T* b) {
        constexpr int RUN = Left::RUN;
        static_assert(M % RUN == 0 && N % Right::RUN == 0, "whole runs");
        // An unrolled loop would hold the values of several ks, which exceed the 128 registers available with two
        // blocks on a multiprocessor.
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
    // Adds terms[column * step] to every row.
    __device__ __forceinline__ void add(const T* terms, int step, int columns) {
#pragma unroll
        for (int j = 0; j < N; ++j) {
            const int column = Right::place(threadIdx.x % 16, j);
            const float term = column < columns ? to_float(terms[column * step]) : 0.0f;
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
    // Stores the sums in c (m x n), from (row, column) on.
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
// Reads a lane's part of a slice: four matrices of 8 rows x 16 bytes at once, two down and two across, in the order
// that mma.sync requires of a (DownFirst) and of b. The swizzle is an exclusive or of a few bits, so that every
// position of a lane follows from an offset, computed once, and constants.
template <class Kind, int SIZE, bool KFast, bool DownFirst> struct Reader {
    using T = Storage<Kind>;
    using Layout = Slice<T, SIZE, KFast>;
    static constexpr int V = Layout::V, K = Layout::K;
    static constexpr bool MATRICES = KFast || sizeof(T) == 2;
    int lane;  // the offset at which the lane's part begins
    __device__ static __forceinline__ int down(int q) { return (DownFirst ? q % 2 : q / 2) * 8; }
    __device__ static __forceinline__ int right(int q) { return (DownFirst ? q / 2 : q % 2) * V; }

    __device__ __forceinline__ Reader(int row) {
        const int own = threadIdx.x % 32, matrix = own / 8, line = own % 8;
        if (KFast) lane = Layout::offset(row + down(matrix) + line, right(matrix));
        else if (MATRICES) lane = Layout::offset(row + down(matrix), right(matrix) + line);
        else lane = Layout::offset(row + own / 4, own % 4);
    }
    // Reads rows `row` .. row + 16, where row is a multiple of 16, at 2 V ks from k on.
    __device__ __forceinline__ void read(unsigned (&out)[4], const T* slice, int row, int k) const {
        if constexpr (KFast) {
            load_matrices<false>(out, slice + (lane ^ k) + row * K);
        } else if constexpr (MATRICES) {
            load_matrices<true>(out, slice + (lane ^ row) + k * SIZE);
        } else {
#pragma unroll
            for (int q = 0; q < 4; ++q)
                out[q] = __float_as_uint(slice[(lane ^ (row + down(q))) + (k + right(q)) * SIZE]);
        }
        if constexpr (sizeof(T) == 4)
#pragma unroll
            for (int q = 0; q < 4; ++q) out[q] = tf32_bits(out[q]);
    }
};

// Four warps, two down and two across, each with fragments of 16 x 8 sums.
template <class Kind, int ROWS, int COLUMNS, bool AKFast, bool BKFast> struct CoreTile {
    using T = Storage<Kind>;
    static constexpr int V = 16 / sizeof(T), K = 64 / sizeof(T), M = ROWS / 2 / 16, N = COLUMNS / 2 / 8;
    static_assert(N % 2 == 0, "fragments of b are read two at a time");
    float sums[M][N][4] = {};
    Reader<Kind, ROWS, AKFast, true> left{row()};
    Reader<Kind, COLUMNS, BKFast, false> right{column()};
    __device__ static __forceinline__ int row() { return threadIdx.x / 64 * (ROWS / 2); }
    __device__ static __forceinline__ int column() { return threadIdx.x / 32 % 2 * (COLUMNS / 2); }

    __device__ __forceinline__ void multiply(const T* a, const T* b) {
#pragma unroll
        for (int k = 0; k < K; k += 2 * V) {
            Operands<M, N> operands;
#pragma unroll
            for (int i = 0; i < M; ++i) left.read(operands.a[i], a, i * 16, k);
#pragma unroll
            for (int j = 0; j < N; j += 2) {
                unsigned both[4];
                right.read(both, b, j * 8, k);
#pragma unroll
                for (int q = 0; q < 4; ++q) operands.b[j + q / 2][q % 2] = both[q];
            }
            multiply_fragments<Kind>(sums, operands);
        }
    }
    __device__ __forceinline__ void add(const T* terms, int step, int columns) {
#pragma unroll
        for (int j = 0; j < N; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const int place = column() + j * 8 + threadIdx.x % 4 * 2 + e;
                const float term = place < columns ? to_float(terms[place * step]) : 0.0f;
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

// The epilogue of a sum: terms[column * step] is added unless terms is null, then max(sum, 0) is taken if relu is not 0.
template <typename T> struct Finish {
    const T* terms = nullptr;
    int relu = 0, step = 1;
};

template <int SIDE> struct alignas(16) TileMemory {
    char bytes[STAGES * 2 * SIDE * 64];
};

// Computes one tile of c (m x n), SIDE x SIDE, the block-th down and the blockIdx.y-th across: the sums over k in
// [k_begin, k_end), and their epilogue. k_begin is a multiple of 32; so is k_end, unless it is the whole of k.
template <class Kind, int SIDE, class A, class B, class C>
__device__ __forceinline__ void tile_product(int block, int m, int n, int k_begin, int k_end, const A& a, const B& b,
                                             const Finish<Storage<Kind>>& finish, const C& c) {
    using T = Storage<Kind>;
    using Slices = TileMemory<SIDE>;
    SHARED(Slices, memory);
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
    Loader<T, TILE_THREADS<Kind>, SIDE, A> left(a, row);
    Loader<T, TILE_THREADS<Kind>, SIDE, B> right(b, column);
    Copies copies;
    Tile tile;
    // A group is closed even if nothing is left to load, so that the count of groups identifies the slice that has
    // arrived.
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
        // After the barrier, every thread's copies of this slice have arrived and every thread has finished with the
        // slice before it, which the next one replaces.
        __syncthreads();
        load(stage == 0 ? STAGES - 1 : stage - 1, k + (STAGES - 1) * K);
        tile.multiply(lefts + stage * SLICE, rights + stage * SLICE);
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    }
    if (finish.terms) tile.add(finish.terms + column * finish.step, finish.step, n - column);
    if (finish.relu) tile.rectify();
    tile.store(c, row, column, m, n);
}
