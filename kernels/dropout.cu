// Dropout: y = x scale if the counter-based random word for the value's index in the whole batch is at least the
// threshold, otherwise 0. The backward pass applies the same map to dy. The step is read from memory, so that a
// captured graph uses new words each time.
#include "philox.cuh"

template <typename T>
__device__ void dropout_mask(
    const T* x,            // (N, H, W, c)
    T* y,                  // (N, H, W, c)
    const unsigned* step,  // (1)
    const unsigned* row,   // (1): the first sample of this part in the whole batch
    long long n, int c, int channels, long long first_pixel, long long image, int first_channel, unsigned key_low, unsigned key_high,
    unsigned layer, unsigned threshold, float scale) {
    const long long i = vector_start<T>();
    if (i >= n) return;
    const Philox random = {key_low, key_high, *step, layer};
    Vector<T> vector = load_vector(x, i, n);
    // If the device holds all channels, consecutive elements have consecutive indices.
    const long long pixel = c == channels ? 0 : i / c;
    long long channel = i - pixel * c;
    unsigned long long index = (unsigned long long)((*row * image + first_pixel + pixel) * channels + first_channel + channel);
    unsigned long long known = ~0ull;
    uint4 words = make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int j = 0; j < Vector<T>::SIZE; ++j) {
        if (index / 4 != known) {
            known = index / 4;
            words = random.words(known);
        }
        const unsigned lane = index % 4, word = lane < 2 ? (lane ? words.y : words.x) : lane == 2 ? words.z : words.w;
        vector.at[j] = from_float<T>(word >= threshold ? to_float(vector.at[j]) * scale : 0.0f);
        ++index;
        if (c != channels && ++channel == c) {
            channel = 0;
            index += channels - c;
        }
    }
    store_vector(y, i, n, vector);
}
KERNEL(dropout_mask, f32, bf16)

// As above, with one word for each channel of a sample, or for each sample.
template <typename T>
__device__ void dropout_units(
    const T* x,            // (N, image)
    T* y,                  // (N, image)
    const unsigned* step,  // (1)
    const unsigned* row,   // (1): the first sample of this part in the whole batch
    long long n, int image, int c, int channels, long long first_sample, int first_channel, int by_sample, unsigned key_low,
    unsigned key_high, unsigned layer, unsigned threshold, float scale) {
    const long long i = vector_start<T>();
    if (i >= n) return;
    const Philox random = {key_low, key_high, *step, layer};
    Vector<T> vector = load_vector(x, i, n);
    unsigned long long known = ~0ull;
    uint4 words = make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int j = 0; j < Vector<T>::SIZE; ++j) {
        const long long sample = (i + j) / image;
        const unsigned long long unit = *row + first_sample + sample;
        const int channel = (int)((i + j - sample * image) % c);
        const unsigned long long index = by_sample ? unit : unit * channels + first_channel + channel;
        if (index / 4 != known) {
            known = index / 4;
            words = random.words(known);
        }
        const unsigned lane = index % 4, word = lane < 2 ? (lane ? words.y : words.x) : lane == 2 ? words.z : words.w;
        vector.at[j] = from_float<T>(word >= threshold ? to_float(vector.at[j]) * scale : 0.0f);
    }
    store_vector(y, i, n, vector);
}
KERNEL(dropout_units, f32, bf16)
