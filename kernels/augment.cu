// Normalises a batch of raw pixels, as stored in the data set.
#include "augment.cuh"

// One thread per 16 bytes of y.
template <typename T>
__device__ void augment_normalize(
    const unsigned char* bytes,  // (N, H, W, C), or null
    const float* floats,         // (N, H, W, C), or null
    const float* table,          // (2 + 2 M)
    T* y,                        // (N, H, W, C)
    long long n, int c) {  // c: the number of means
    constexpr int V = 16 / sizeof(T);
    const long long i = vector_start<T>();
    if (i >= n) return;
    float values[V];
    if (floats) {
#pragma unroll
        for (int k = 0; k < V; k += 4) {
            const Vector<float> part = load_vector(floats, i + k, n);
#pragma unroll
            for (int j = 0; j < 4; ++j) values[k + j] = part.at[j];
        }
    } else if (i + V <= n && (unsigned long long)(bytes + i) % V == 0) {
        const Run<unsigned char, V> run = load_run<V>(bytes + i);
#pragma unroll
        for (int j = 0; j < V; ++j) values[j] = (float)run.at[j];
    } else {
#pragma unroll
        for (int j = 0; j < V; ++j) values[j] = i + j < n ? (float)bytes[i + j] : 0.0f;
    }
    Vector<T> vector;
    int channel = i % c;
#pragma unroll
    for (int j = 0; j < V; ++j) {
        vector.at[j] = from_float<T>(normalized(table, channel, values[j]));
        if (++channel == c) channel = 0;
    }
    store_vector(y, i, n, vector);
}
KERNEL(augment_normalize, f32, bf16)
