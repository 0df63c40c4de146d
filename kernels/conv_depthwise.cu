// Convolution whose filters have one channel each: output q of a run of groups reads channel q / outputs. There is too
// little to multiply for tiles, so each thread adds its own products. Pointers are to the first channel of the first
// group; strides are those of the whole tensors.
#include "block.cuh"
#include "conv.cuh"

// One thread per element of the run's y.
template <typename T>
__device__ void conv_depthwise_forward(
    const T* x,         // (N, H, W, C)
    const T* w,         // (O, KH, KW, 1)
    const T* bias,      // (O), or null
    T* y,               // (N, OH, OW, O)
    ConvGeometry g, int outputs, int groups, int relu) {
    const long long i = thread_index();
    const int run = outputs * groups;
    const long long pixel = i / run, line = pixel / g.ow, sample = line / g.oh;
    if (sample >= g.n) return;
    const int q = (int)(i - pixel * run);
    const int top = (int)(line - sample * g.oh) * g.stride_h - g.pad_h, left = (int)(pixel - line * g.ow) * g.stride_w - g.pad_w;
    x += sample * g.h * g.w * g.c + q / outputs;
    w += (long long)q * g.kh * g.kw;
    float sum = bias ? to_float(bias[q]) : 0.0f;
    for (int kh = max(0, -top); kh < min(g.kh, g.h - top); ++kh)
        for (int kw = max(0, -left); kw < min(g.kw, g.w - left); ++kw)
            sum += to_float(x[((long long)(top + kh) * g.w + left + kw) * g.c]) * to_float(w[kh * g.kw + kw]);
    y[pixel * g.o + q] = from_float<T>(rectified(sum, relu));
}
KERNEL(conv_depthwise_forward, f32, bf16)

// One thread per element of the run's dx.
template <typename T>
__device__ void conv_depthwise_backward_input(
    const T* dy,  // (N, OH, OW, O)
    const T* w,   // (O, KH, KW, 1)
    T* dx,        // (N, H, W, C)
    ConvGeometry g, int outputs, int groups) {
    const long long i = thread_index(), pixel = i / groups, line = pixel / g.w, sample = line / g.h;
    if (sample >= g.n) return;
    const int group = (int)(i - pixel * groups);
    const int row = (int)(line - sample * g.h) + g.pad_h, column = (int)(pixel - line * g.w) + g.pad_w;
    dy += sample * g.oh * g.ow * g.o + group * outputs;
    w += (long long)group * outputs * g.kh * g.kw;
    float sum = 0.0f;
    for (int kh = row % g.stride_h; kh < g.kh && kh <= row; kh += g.stride_h) {
        const int oh = (row - kh) / g.stride_h;
        if (oh >= g.oh) continue;
        for (int kw = column % g.stride_w; kw < g.kw && kw <= column; kw += g.stride_w) {
            const int ow = (column - kw) / g.stride_w;
            if (ow >= g.ow) continue;
            const T *gradient = dy + ((long long)oh * g.ow + ow) * g.o, *tap = w + kh * g.kw + kw;
            for (int q = 0; q < outputs; ++q)
                sum += to_float(gradient[q]) * to_float(tap[(long long)q * g.kh * g.kw]);
        }
    }
    dx[pixel * g.c + group] = from_float<T>(sum);
}
KERNEL(conv_depthwise_backward_input, f32, bf16)

// A block sums one tap (grid y) of 32 outputs (grid x) over a part of the output pixels (grid z), eight at a time.
template <typename T>
__device__ void conv_depthwise_backward_weight(
    const T* x,   // (N, H, W, C)
    const T* dy,  // (N, OH, OW, O)
    float* dw,    // (parts, O, KH, KW, 1)
    ConvGeometry g, int outputs, int groups, int pixels_per_part) {
    using Parts = float[8][33];
    SHARED(Parts, parts);
    const int lane = threadIdx.x % 32, group = threadIdx.x / 32, q = blockIdx.x * 32 + lane;
    const int kh = blockIdx.y / g.kw, kw = blockIdx.y % g.kw, begin = blockIdx.z * pixels_per_part;
    const int end = min(g.n * g.oh * g.ow, begin + pixels_per_part);
    const bool mine = q < outputs * groups;
    float sum = 0.0f;
    for (int pixel = begin + group; mine && pixel < end; pixel += 8) {
        const int line = pixel / g.ow, sample = line / g.oh;
        const int row = (line - sample * g.oh) * g.stride_h - g.pad_h + kh;
        const int column = (pixel - line * g.ow) * g.stride_w - g.pad_w + kw;
        if ((unsigned)row >= (unsigned)g.h || (unsigned)column >= (unsigned)g.w) continue;
        const long long at = (((long long)sample * g.h + row) * g.w + column) * g.c + q / outputs;
        sum += to_float(dy[(long long)pixel * g.o + q]) * to_float(x[at]);
    }
    parts[group][lane] = sum;
    __syncthreads();
    if (group > 0 || !mine) return;
    for (int i = 1; i < 8; ++i) sum += parts[i][lane];
    dw[((long long)blockIdx.z * g.o + q) * g.kh * g.kw + blockIdx.y] = sum;
}
KERNEL(conv_depthwise_backward_weight, f32, bf16)
