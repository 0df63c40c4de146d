// Counter-based random numbers: Philox4x32-10, with the same words as src/device/philox.rs.
#pragma once
#include "block.cuh"

struct Philox {
    unsigned key_low, key_high, time, stream;

    // The four words at `counter`.
    __device__ uint4 words(unsigned long long counter) const {
        unsigned c0 = (unsigned)counter, c1 = (unsigned)(counter >> 32), c2 = time, c3 = stream;
        unsigned k0 = key_low, k1 = key_high;
        for (int round = 0; round < 10; ++round) {
            const unsigned a = 0xD2511F53u * c0, b = 0xCD9E8D57u * c2;
            const unsigned a_high = __umulhi(0xD2511F53u, c0), b_high = __umulhi(0xCD9E8D57u, c2);
            c0 = b_high ^ c1 ^ k0;
            c2 = a_high ^ c3 ^ k1;
            c1 = b;
            c3 = a;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        return make_uint4(c0, c1, c2, c3);
    }
};
