// What convolutions are told of their tensors.
#pragma once

struct ConvGeometry {
    int n, h, w, c;     // the input: samples, image, channels held
    int oh, ow, o;      // the output image, channels held
    int kh, kw, depth;  // a filter
    int stride_h, stride_w, pad_h, pad_w;
};
