// Maxima over windows. Training keeps the place of each maximum in its window, kh KW + kw, the first of equal ones;
// backward gathers: each input pixel asks the windows that hold it, in order, so nothing is added atomically.
#include "pool.cuh"

template <typename T> __device__ void max_y(const T* x, T* y, T* places, long long n, const Pool& p) {
    const long long i = thread_index();
    if (i >= n) return;
    const Element e = element(i, p.oh, p.ow, p.c);
    const int top = e.row * p.stride_h - p.pad_h, left = e.column * p.stride_w - p.pad_w;
    x += e.sample * p.h * p.w * p.c + e.channel;
    float best = 0.0f;
    int place = -1;
    for (int h = max(top, 0); h < min(top + p.kh, p.h); ++h)
        for (int w = max(left, 0); w < min(left + p.kw, p.w); ++w) {
            const float v = to_float(x[((long long)h * p.w + w) * p.c]);
            if (place >= 0 && !(v > best) && v == v) continue;
            best = v;
            place = (h - top) * p.kw + w - left;
        }
    y[i] = from_float<T>(best);
    if (places) places[i] = from_float<T>((float)place);
}

template <typename T> __device__ void max_dx(const T* places, const T* dy, T* dx, long long n, const Pool& p) {
    const long long i = thread_index();
    if (i >= n) return;
    const Element e = element(i, p.h, p.w, p.c);
    float sum = 0.0f;
    const int end_h = end_output(e.row, p.stride_h, p.pad_h, p.oh);
    const int end_w = end_output(e.column, p.stride_w, p.pad_w, p.ow);
    for (int oh = first_output(e.row, p.kh, p.stride_h, p.pad_h); oh < end_h; ++oh)
        for (int ow = first_output(e.column, p.kw, p.stride_w, p.pad_w); ow < end_w; ++ow) {
            const int place = (e.row + p.pad_h - oh * p.stride_h) * p.kw + e.column + p.pad_w - ow * p.stride_w;
            const long long at = ((e.sample * p.oh + oh) * p.ow + ow) * p.c + e.channel;
            if (to_float(places[at]) == (float)place) sum += to_float(dy[at]);
        }
    dx[i] = from_float<T>(sum);
}

extern "C" __global__ void __launch_bounds__(256) max_pool_forward(
    const float* x,  // (N, H, W, C)
    float* y,  // (N, OH, OW, C)
    float* places,  // (N, OH, OW, C), or null; below 256, so that bf16 holds them
    long long n, int h, int w, int c, int oh, int ow, int kh, int kw, int stride_h, int stride_w, int pad_h,
    int pad_w) {
    max_y(x, y, places, n, {h, w, c, oh, ow, kh, kw, stride_h, stride_w, pad_h, pad_w});
}

extern "C" __global__ void __launch_bounds__(256) max_pool_forward_bf16(
    const __nv_bfloat16* x,  // (N, H, W, C)
    __nv_bfloat16* y,  // (N, OH, OW, C)
    __nv_bfloat16* places,  // (N, OH, OW, C), or null; below 256, so that bf16 holds them
    long long n, int h, int w, int c, int oh, int ow, int kh, int kw, int stride_h, int stride_w, int pad_h,
    int pad_w) {
    max_y(x, y, places, n, {h, w, c, oh, ow, kh, kw, stride_h, stride_w, pad_h, pad_w});
}

extern "C" __global__ void __launch_bounds__(256) max_pool_backward(
    const float* places,  // (N, OH, OW, C)
    const float* dy,  // (N, OH, OW, C)
    float* dx,  // (N, H, W, C)
    long long n, int h, int w, int c, int oh, int ow, int kh, int kw, int stride_h, int stride_w, int pad_h,
    int pad_w) {
    max_dx(places, dy, dx, n, {h, w, c, oh, ow, kh, kw, stride_h, stride_w, pad_h, pad_w});
}

extern "C" __global__ void __launch_bounds__(256) max_pool_backward_bf16(
    const __nv_bfloat16* places,  // (N, OH, OW, C)
    const __nv_bfloat16* dy,  // (N, OH, OW, C)
    __nv_bfloat16* dx,  // (N, H, W, C)
    long long n, int h, int w, int c, int oh, int ow, int kh, int kw, int stride_h, int stride_w, int pad_h,
    int pad_w) {
    max_dx(places, dy, dx, n, {h, w, c, oh, ow, kh, kw, stride_h, stride_w, pad_h, pad_w});
}
