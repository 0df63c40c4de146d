// Stochastic pooling: draws a pixel of each window with a probability proportional to max(x, 0), the first one where their sum so far
// reaches u times the whole; evaluation takes the mean by these probabilities. The position is kept as by max_pool, whose backward pass
// this layer uses; kh KW positions mean that none was drawn.
#include "philox.cuh"
#include "pool.cuh"

// The weight of a value; that of a NaN is NaN.
__device__ __forceinline__ float weight(float x) { return x > 0.0f || x != x ? x : 0.0f; }

// Calls f(position, values) for the part of a window that is on the image, position by position.
template <int N, typename T, class F>
__device__ __forceinline__ void each_tap(const T* x, const Element& e, const PoolGeometry& p, const F& f) {
    const int top = e.row * p.stride_h - p.pad_h, left = e.column * p.stride_w - p.pad_w;
    const T* image = x + e.sample * p.h * p.w * p.c + e.channel;
    for (int h = max(top, 0); h < min(top + p.kh, p.h); ++h)
        for (int w = max(left, 0); w < min(left + p.kw, p.w); ++w)
            f((h - top) * p.kw + w - left, load_run<N>(image + ((long long)h * p.w + w) * p.c));
}

template <typename T>
__device__ void stochastic_pool_draw(
    const T* x,            // (N, H, W, C)
    T* y,                  // (N, OH, OW, C)
    T* places,             // (N, OH, OW, C)
    const unsigned* step,  // (1)
    const unsigned* row,   // (1): the first sample of this part in the whole batch
    long long n, PoolGeometry p, long long first_sample, int channels, int first_channel, unsigned key_low, unsigned key_high,
    unsigned layer) {
    const Philox random = {key_low, key_high, *step, layer};
    const auto one = [&](auto size, long long i) {
        constexpr int N = decltype(size)::value;
        const Element e = element_at(i, p.oh, p.ow, p.c);
        float aims[N] = {}, sums[N] = {}, drawn[N], place[N];
        each_tap<N>(x, e, p, [&](int, const Run<T, N>& run) {
#pragma unroll
            for (int j = 0; j < N; ++j) aims[j] += weight(to_float(run.at[j]));
        });
        const unsigned long long pixel = ((*row + first_sample + e.sample) * p.oh + e.row) * p.ow + e.column;
        const unsigned long long index = pixel * channels + first_channel + e.channel;
        unsigned long long known = ~0ull;
        uint4 words = make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int j = 0; j < N; ++j) {
            if ((index + j) / 4 != known) {
                known = (index + j) / 4;
                words = random.words(known);
            }
            const unsigned lane = (index + j) % 4;
            const unsigned word = lane < 2 ? (lane ? words.y : words.x) : lane == 2 ? words.z : words.w;
            drawn[j] = aims[j] * 0.0f;  // a NaN stays one
            aims[j] *= ((float)(word >> 9) + 0.5f) * (1.0f / 8388608.0f);
            place[j] = -1.0f;
        }
        each_tap<N>(x, e, p, [&](int tap, const Run<T, N>& run) {
#pragma unroll
            for (int j = 0; j < N; ++j) {
                const float value = to_float(run.at[j]);
                sums[j] += weight(value);
                if (place[j] >= 0.0f || !(sums[j] > 0.0f) || !(sums[j] >= aims[j])) continue;
                drawn[j] = value;
                place[j] = (float)tap;
            }
        });
        store_run(y + i, drawn);
#pragma unroll
        for (int j = 0; j < N; ++j) place[j] = place_code<T>(place[j] < 0.0f ? p.kh * p.kw : (int)place[j]);
        store_run(places + i, place);
    };
    each_run<T>(n, p.c, one, x, y, places);
}
KERNEL(stochastic_pool_draw, f32, bf16)

template <typename T>
__device__ void stochastic_pool_evaluate(
    const T* x,  // (N, H, W, C)
    T* y,        // (N, OH, OW, C)
    long long n, PoolGeometry p) {
    const auto one = [&](auto size, long long i) {
        constexpr int N = decltype(size)::value;
        const Element e = element_at(i, p.oh, p.ow, p.c);
        float totals[N] = {}, sums[N] = {};
        each_tap<N>(x, e, p, [&](int, const Run<T, N>& run) {
#pragma unroll
            for (int j = 0; j < N; ++j) {
                const float value = to_float(run.at[j]);
                totals[j] += weight(value);
                sums[j] += weight(value) * value;
            }
        });
#pragma unroll
        for (int j = 0; j < N; ++j) sums[j] = totals[j] == 0.0f ? 0.0f : sums[j] / totals[j];
        store_run(y + i, sums);
    };
    each_run<T>(n, p.c, one, x, y);
}
KERNEL(stochastic_pool_evaluate, f32, bf16)
