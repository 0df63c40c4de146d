// Functions of two variables, one thread per sample.
#include "block.cuh"

// f(x, y), and its derivatives by x and by y.
struct SurfacePoint {
    float value, by_x, by_y;
};

// The functions are numbered as in src/layers/surface.rs; k is the condition.
__device__ inline SurfacePoint surface_at(int function, float k, float x, float y) {
    if (function == 0) return {0.5f * (x * x / k + y * y), x / k, y};
    if (function == 1) return {0.5f * (x * x - y * y), x, -y};
    if (function == 2) {
        const float far = 1.0f - x, wall = y - x * x;
        return {0.5f * (far * far + k * wall * wall), -far - 2.0f * k * wall * x, k * wall};
    }
    const float step = 1.0f / (1.0f + expf(-k * x));
    return {0.05f * (x * x + y * y) + step, 0.1f * x + k * step * (1.0f - step), 0.1f * y};
}

template <typename T>
__device__ void surface_forward(
    const T* x,   // (N, 2)
    float* rows,  // (N, 3): the value, and the point
    int n, int function, float k) {
    const long long i = thread_index();
    if (i >= n) return;
    const float a = to_float(x[2 * i]), b = to_float(x[2 * i + 1]);
    rows[3 * i] = surface_at(function, k, a, b).value;
    rows[3 * i + 1] = a;
    rows[3 * i + 2] = b;
}
KERNEL(surface_forward, f32, bf16)

template <typename T>
__device__ void surface_backward(
    const T* x,  // (N, 2)
    T* dx,       // (N, 2)
    int n, int function, float k, float scale) {
    const long long i = thread_index();
    if (i >= n) return;
    const SurfacePoint at = surface_at(function, k, to_float(x[2 * i]), to_float(x[2 * i + 1]));
    dx[2 * i] = from_float<T>(at.by_x * scale);
    dx[2 * i + 1] = from_float<T>(at.by_y * scale);
}
KERNEL(surface_backward, f32, bf16)
