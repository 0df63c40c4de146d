// Sums over rows: a block of 256 threads sums 32 columns. If width and addresses allow it, a thread reads 16 bytes of a
// row at a time.
#pragma once
#include "block.cuh"

// A thread's share: V columns of the rows first, first + STEP, ...
template <int V> struct Share {
    static constexpr int LANES = 32 / V, STEP = 8 * V;  // lanes for 32 columns, rows per block at a time
    int across;
    long long column, first, end;
    // Rows begin .. stop of the 32 columns from 32 block on.
    __device__ Share(long long block, long long begin, long long stop, long long width) {
        across = threadIdx.x % LANES * V;
        column = block * 32 + across;
        first = begin + threadIdx.x / LANES;
        end = column < width ? stop : first;
    }
};

using ColumnSums = float[8][33];

// Returns, in the first 32 threads, the sum over rows begin .. stop of value(row, column), where column is 32 block +
// threadIdx.x.
template <class F>
__device__ __forceinline__ float column_sum_of(long long block, long long begin, long long stop, long long width, const F& value) {
    SHARED(ColumnSums, table);
    const Share<1> share(block, begin, stop, width);
    float sum = 0.0f;
#pragma unroll 4
    for (long long row = share.first; row < share.end; row += share.STEP) sum += value(row, share.column);
    __syncthreads();
    table[threadIdx.x / 32][share.across] = sum;
    __syncthreads();
    sum = table[0][threadIdx.x % 32];
    for (int i = 1; i < 8; ++i) sum += table[i][threadIdx.x % 32];
    return sum;
}

template <int V, typename T>
__device__ __forceinline__ void sum_share(const T* x, const Share<V>& share, long long width, ColumnSums& table) {
    float sums[V] = {};
#pragma unroll 4
    for (long long row = share.first; row < share.end; row += share.STEP) {
        const Run<T, V> run = load_run<V>(x + row * width + share.column);
#pragma unroll
        for (int j = 0; j < V; ++j) sums[j] += to_float(run.at[j]);
    }
#pragma unroll
    for (int j = 0; j < V; ++j) {
        for (int bits = share.LANES; bits < 32; bits *= 2) sums[j] += __shfl_xor_sync(0xffffffffu, sums[j], bits);
        if (threadIdx.x % 32 < share.LANES) table[threadIdx.x / 32][share.across + j] = sums[j];
    }
}

// Returns, in the first 32 threads, the sum over rows begin .. stop of column 32 block + threadIdx.x. Its order is
// fixed by the shape.
template <typename T>
__device__ __forceinline__ float column_sum(const T* x, long long block, long long begin, long long stop, long long width) {
    SHARED(ColumnSums, table);
    by_alignment<T>(width, [&](auto size) {
        constexpr int V = decltype(size)::value;
        sum_share(x, Share<V>(block, begin, stop, width), width, table);
    }, x);
    __syncthreads();
    float sum = table[0][threadIdx.x % 32];
    for (int i = 1; i < 8; ++i) sum += table[i][threadIdx.x % 32];
    return sum;
}
