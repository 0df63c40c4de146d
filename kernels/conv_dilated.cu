// Convolution whose filters skip pixels, as plain sums: a thread computes one element. Pointers are to the first channel of the
// first group of a run; strides are those of the whole tensors.
#include "block.cuh"
#include "conv.cuh"

template <typename T>
__device__ void conv_dilated_forward(
    const T* x,     // (N, H, W, C)
    const T* w,     // (O, KH, KW, depth)
    const T* bias,  // (O), or null
    T* y,           // (N, OH, OW, O)
    ConvGeometry g, int dilation_h, int dilation_w, int outputs, int groups, int relu) {
    const long long i = thread_index();
    const int run = outputs * groups;
    const long long pixel = i / run, line = pixel / g.ow, sample = line / g.oh;
    if (sample >= g.n) return;
    const int q = (int)(i - pixel * run);
    const int top = (int)(line - sample * g.oh) * g.stride_h - g.pad_h, left = (int)(pixel - line * g.ow) * g.stride_w - g.pad_w;
    x += sample * g.h * g.w * g.c + q / outputs * g.depth;
    w += (long long)q * g.kh * g.kw * g.depth;
    float sum = bias ? to_float(bias[q]) : 0.0f;
    for (int kh = 0; kh < g.kh; ++kh) {
        const int row = top + kh * dilation_h;
        if (row < 0 || row >= g.h) continue;
        for (int kw = 0; kw < g.kw; ++kw) {
            const int column = left + kw * dilation_w;
            if (column < 0 || column >= g.w) continue;
            const T* from = x + ((long long)row * g.w + column) * g.c;
            const T* filter = w + (kh * g.kw + kw) * g.depth;
            for (int d = 0; d < g.depth; ++d) sum += to_float(from[d]) * to_float(filter[d]);
        }
    }
    y[pixel * g.o + q] = from_float<T>(rectified(sum, relu));
}
KERNEL(conv_dilated_forward, f32, bf16)

template <typename T>
__device__ void conv_dilated_backward_weight(
    const T* x,   // (N, H, W, C)
    const T* dy,  // (N, OH, OW, O)
    float* dw,    // (O, KH, KW, depth)
    ConvGeometry g, int dilation_h, int dilation_w, int outputs, int groups) {
    const long long i = thread_index();
    const int filter = g.kh * g.kw * g.depth;
    if (i >= (long long)outputs * groups * filter) return;
    const int q = (int)(i / filter), rest = (int)(i - (long long)q * filter), tap = rest / g.depth, d = rest - tap * g.depth;
    const int down = tap / g.kw * dilation_h - g.pad_h, right = tap % g.kw * dilation_w - g.pad_w;
    float sum = 0.0f;
    for (long long sample = 0; sample < g.n; ++sample) {
        for (int oh = 0; oh < g.oh; ++oh) {
            const int row = oh * g.stride_h + down;
            if (row < 0 || row >= g.h) continue;
            for (int ow = 0; ow < g.ow; ++ow) {
                const int column = ow * g.stride_w + right;
                if (column < 0 || column >= g.w) continue;
                sum += to_float(x[((sample * g.h + row) * g.w + column) * g.c + q / outputs * g.depth + d]) *
                       to_float(dy[((sample * g.oh + oh) * g.ow + ow) * g.o + q]);
            }
        }
    }
    dw[i] = sum;
}
KERNEL(conv_dilated_backward_weight, f32, bf16)

template <typename T>
__device__ void conv_dilated_backward_input(
    const T* dy,  // (N, OH, OW, O)
    const T* w,   // (O, KH, KW, depth)
    T* dx,        // (N, H, W, C)
    ConvGeometry g, int dilation_h, int dilation_w, int outputs, int groups) {
    const long long i = thread_index();
    const int run = g.depth * groups;
    const long long pixel = i / run, line = pixel / g.w, sample = line / g.h;
    if (sample >= g.n) return;
    const int channel = (int)(i - pixel * run), group = channel / g.depth, d = channel - group * g.depth;
    const int row = (int)(line - sample * g.h) + g.pad_h, column = (int)(pixel - line * g.w) + g.pad_w;
    float sum = 0.0f;
    for (int kh = 0; kh < g.kh; ++kh) {
        const int down = row - kh * dilation_h;
        if (down < 0 || down % g.stride_h || down / g.stride_h >= g.oh) continue;
        for (int kw = 0; kw < g.kw; ++kw) {
            const int right = column - kw * dilation_w;
            if (right < 0 || right % g.stride_w || right / g.stride_w >= g.ow) continue;
            const T* above = dy + ((sample * g.oh + down / g.stride_h) * g.ow + right / g.stride_w) * g.o + group * outputs;
            const T* filter = w + (((long long)group * outputs * g.kh + kh) * g.kw + kw) * g.depth + d;
            for (int q = 0; q < outputs; ++q) {
                sum += to_float(above[q]) * to_float(filter[(long long)q * g.kh * g.kw * g.depth]);
            }
        }
    }
    dx[pixel * g.c + channel] = from_float<T>(sum);
}
KERNEL(conv_dilated_backward_input, f32, bf16)
