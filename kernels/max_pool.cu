// Maxima over windows. Training keeps the position of each maximum in its window, kh KW + kw, the first one if several
// are equal. The backward pass gathers: each input pixel reads the windows that contain it, in order, so nothing is
// added atomically.
#include "pool.cuh"

template <typename T>
__device__ void max_pool_forward(
    const T* x,  // (N, H, W, C)
    T* y,        // (N, OH, OW, C)
    T* places,   // (N, OH, OW, C), or null
    long long n, PoolGeometry p) {
    const auto one = [&](auto size, long long i) {
        constexpr int N = decltype(size)::value;
        const Element e = element_at(i, p.oh, p.ow, p.c);
        const int top = e.row * p.stride_h - p.pad_h, left = e.column * p.stride_w - p.pad_w;
        const T* image = x + e.sample * p.h * p.w * p.c + e.channel;
        float best[N] = {}, place[N];
#pragma unroll
        for (int j = 0; j < N; ++j) place[j] = -1.0f;
        for (int h = max(top, 0); h < min(top + p.kh, p.h); ++h)
            for (int w = max(left, 0); w < min(left + p.kw, p.w); ++w) {
                const Run<T, N> run = load_run<N>(image + ((long long)h * p.w + w) * p.c);
                const float here = (float)((h - top) * p.kw + w - left);
#pragma unroll
                for (int j = 0; j < N; ++j) {
                    const float v = to_float(run.at[j]);
                    if (place[j] >= 0.0f && !(v > best[j]) && v == v) continue;
                    best[j] = v;
                    place[j] = here;
                }
            }
        store_run(y + i, best);
        if (!places) return;
#pragma unroll
        for (int j = 0; j < N; ++j) place[j] = place_code<T>((int)place[j]);
        store_run(places + i, place);
    };
    each_run<T>(n, p.c, one, x, y, places);
}
KERNEL(max_pool_forward, f32, bf16)

template <typename T>
__device__ void max_pool_backward(
    const T* places,  // (N, OH, OW, C)
    const T* dy,      // (N, OH, OW, C)
    const T* x,       // (N, H, W, C): dx is 0 where x <= 0; or null
    T* dx,            // (N, H, W, C)
    long long n, PoolGeometry p) {
    const auto one = [&](auto size, long long i) {
        constexpr int N = decltype(size)::value;
        const Element e = element_at(i, p.h, p.w, p.c);
        float sums[N] = {};
        const int end_h = end_output(e.row, p.stride_h, p.pad_h, p.oh);
        const int end_w = end_output(e.column, p.stride_w, p.pad_w, p.ow);
        for (int oh = first_output(e.row, p.kh, p.stride_h, p.pad_h); oh < end_h; ++oh)
            for (int ow = first_output(e.column, p.kw, p.stride_w, p.pad_w); ow < end_w; ++ow) {
                const int place = (e.row + p.pad_h - oh * p.stride_h) * p.kw + e.column + p.pad_w - ow * p.stride_w;
                const unsigned code = __float_as_uint(place_code<T>(place));
                const long long at = ((e.sample * p.oh + oh) * p.ow + ow) * p.c + e.channel;
                const Run<T, N> from = load_run<N>(places + at), run = load_run<N>(dy + at);
#pragma unroll
                for (int j = 0; j < N; ++j)
                    if (__float_as_uint(to_float(from.at[j])) == code) sums[j] += to_float(run.at[j]);
            }
        if (x) {
            const Run<T, N> run = load_run<N>(x + i);
#pragma unroll
            for (int j = 0; j < N; ++j) sums[j] = masked(to_float(run.at[j]), sums[j], 1);
        }
        store_run(dx + i, sums);
    };
    each_run<T>(n, p.c, one, places, dy, x, dx);
}
KERNEL(max_pool_backward, f32, bf16)
