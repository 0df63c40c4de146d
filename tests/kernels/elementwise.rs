use crate::each_type;
use crate::rig::*;
use peristyle::device::{Random, RandomStream};
use peristyle::gpu::kernels::*;
use peristyle::gpu::{Const, Grid};

const SIZES: [usize; 5] = [1, 3, 8, 1023, 4100];

/// Checks a map y = f(x) with dx = g(y, dy), where g receives the y that the kernel has rounded.
macro_rules! map {
    ($forward:ident | $forward_bf16:ident, $backward:ident | $backward_bf16:ident, $f:expr, $g:expr) => {
        for n in SIZES {
            let (x, dy) = (values(n, 1), values(n, 2));
            each_type!(T, forward = $forward | $forward_bf16, backward = $backward | $backward_bf16 => {
                let got = outputs(|rig| {
                    let (y, dx) = (rig.out::<T>(n), rig.out::<T>(n));
                    // SAFETY: all have n elements.
                    unsafe {
                        forward(&rig.on(), vectors::<T>(n), rig.element(&x), y, n as i64).unwrap();
                        backward(&rig.on(), vectors::<T>(n), y.into(), rig.element(&dy), dx, n as i64).unwrap();
                    }
                    vec![rig.numbers(y, n), rig.numbers(dx, n)]
                });
                let y: Vec<f64> = x.iter().map(|&x| $f(f64::from(x))).collect();
                let dx: Vec<f64> = got[0].iter().zip(&dy).map(|(&y, &dy)| $g(f64::from(y), f64::from(dy))).collect();
                close("y", &got[0], &y, T::TOLERANCE);
                close("dx", &got[1], &dx, T::TOLERANCE);
            });
        }
    };
}

#[test]
fn relu_and_its_gradient_are_correct() {
    let positive = |y: f64, dy: f64| if y > 0.0 { dy } else { 0.0 };
    map!(relu_forward | relu_forward_bf16, relu_backward | relu_backward_bf16, |x: f64| x.max(0.0), positive);
}

#[test]
fn tanh_and_its_gradient_are_correct() {
    let slope = |y: f64, dy: f64| dy * (1.0 - y * y);
    map!(tanh_forward | tanh_forward_bf16, tanh_backward | tanh_backward_bf16, f64::tanh, slope);
}

#[test]
fn sigmoid_and_its_gradient_are_correct() {
    let (logistic, slope) = (|x: f64| 1.0 / (1.0 + (-x).exp()), |y: f64, dy: f64| dy * y * (1.0 - y));
    map!(sigmoid_forward | sigmoid_forward_bf16, sigmoid_backward | sigmoid_backward_bf16, logistic, slope);
}

#[test]
fn nan_stays_nan() {
    macro_rules! kept {
        ($($kernel:ident | $kernel_bf16:ident $(($setting:expr))?),*) => {$(
            each_type!(T, forward = $kernel | $kernel_bf16 => {
                let got = outputs(|rig| {
                    let y = rig.out::<T>(9);
                    let x = [1.0, -1.0, f32::NAN, 0.5, 2.0, -0.5, 1.5, 3.0, f32::NAN];
                    // SAFETY: both have 9 elements.
                    unsafe { forward(&rig.on(), vectors::<T>(9), rig.element(&x), y, 9 $(, $setting)?).unwrap() };
                    vec![rig.numbers(y, 9)]
                });
                let nans: Vec<usize> = (0..9).filter(|&i| got[0][i].is_nan()).collect();
                assert_eq!(nans, [2, 8], stringify!($kernel));
            });
        )*};
    }
    kept!(
        relu_forward | relu_forward_bf16,
        leaky_relu_forward | leaky_relu_forward_bf16(0.1),
        tanh_forward | tanh_forward_bf16,
        sigmoid_forward | sigmoid_forward_bf16
    );
}

/// The relu that other kernels apply to their results keeps NaN, too: in sums, with a bias, and in products.
#[test]
fn nan_stays_nan_in_a_fused_relu() {
    let x = [1.0, -1.0, f32::NAN, 0.5, 2.0, -0.5, 1.5, 3.0, f32::NAN];
    let check = |kernel: &str, got: &[f32]| {
        let nans: Vec<usize> = (0..9).filter(|&i| got[i].is_nan()).collect();
        assert_eq!((nans, got[1]), (vec![2, 8], 0.0), "{kernel}");
    };
    each_type!(T, add = add_forward | add_forward_bf16, biased = bias_add | bias_add_bf16,
        dense = dense_forward | dense_forward_bf16 => {
        let got = outputs(|rig| {
            let (zeros, sum, y, product) = (rig.element(&[0.0; 9]), rig.out::<T>(9), rig.put(&T::all_from(&x)), rig.out::<T>(9));
            let no_bias: Const<T> = Const::NONE;
            // SAFETY: all have 9 elements; x (9, 1) times w (1, 1) is (9, 1).
            unsafe {
                add(&rig.on(), vectors::<T>(9), rig.element(&x), rig.element(&[0.0; 9]), sum, 9, 1).unwrap();
                biased(&rig.on(), vectors::<T>(9), y, zeros, 9, 9, 1).unwrap();
                dense(&rig.on(), Grid::new(1, 1, 1), rig.element(&x), rig.element(&[1.0]), no_bias, product, 9, 1, 1, 1).unwrap();
            }
            vec![rig.numbers(sum, 9), rig.numbers(y, 9), rig.numbers(product, 9)]
        });
        for (kernel, got) in ["add_forward", "bias_add", "dense_forward"].iter().zip(&got) {
            check(kernel, got);
        }
    });
}

#[test]
fn a_sum_may_overwrite_its_first_term() {
    for n in SIZES {
        let (a, b) = (values(n, 1), values(n, 2));
        let want: Vec<f64> = a.iter().zip(&b).map(|(&a, &b)| f64::from(a) + f64::from(b)).collect();
        each_type!(T, add = add_forward | add_forward_bf16 => {
            let got = outputs(|rig| {
                let y = rig.put(&T::all_from(&a));
                // SAFETY: all have n elements.
                unsafe { add(&rig.on(), vectors::<T>(n), y.into(), rig.element(&b), y, n as i64, 0).unwrap() };
                vec![rig.numbers(y, n)]
            });
            close("y", &got[0], &want, T::TOLERANCE);
        });
    }
}

#[test]
fn a_bias_is_added_to_every_row_and_negative_sums_may_become_zero() {
    for (rows, columns) in [(1, 1), (3, 1), (5, 7), (1, 1023), (64, 64), (41, 100)] {
        for (biased, relu) in [(true, 0), (true, 1), (false, 1)] {
            let (x, bias, n) = (values(rows * columns, 1), values(columns, 2), rows * columns);
            let sum = |i: usize| f64::from(x[i]) + if biased { f64::from(bias[i % columns]) } else { 0.0 };
            let want: Vec<f64> = (0..n).map(|i| if relu == 1 { sum(i).max(0.0) } else { sum(i) }).collect();
            each_type!(T, add = bias_add | bias_add_bf16 => {
                let got = outputs(|rig| {
                    let (y, bias) = (rig.put(&T::all_from(&x)), rig.element(&bias));
                    let bias = if biased { bias } else { Const::NONE };
                    // SAFETY: y is (rows, columns), the bias (columns).
                    unsafe { add(&rig.on(), vectors::<T>(n), y, bias, n as i64, columns as i32, relu).unwrap() };
                    vec![rig.numbers(y, n)]
                });
                close("y", &got[0], &want, T::TOLERANCE);
            });
        }
    }
}

#[test]
fn casts_round_to_the_nearest_even() {
    let special = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, f32::INFINITY, -0.0, 3e38, f32::MIN_POSITIVE / 4.0];
    let x: Vec<f32> = special.into_iter().chain(values(1030, 3).into_iter().map(|v| v * 1.234_567)).collect();
    let n = x.len();
    let got = outputs(|rig| {
        let (y, back) = (rig.out::<half::bf16>(n), rig.out::<f32>(n));
        // SAFETY: all have n elements.
        unsafe {
            cast_to_bf16(&rig.on(), vectors::<half::bf16>(n), rig.give(&x), y, n as i64).unwrap();
            cast_to_float(&rig.on(), vectors::<half::bf16>(n), y.into(), back, n as i64).unwrap();
        }
        vec![rig.get(back, n)]
    });
    let want: Vec<f32> = x.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect();
    assert_eq!(got[0], want);
}

#[test]
fn strided_regions_are_copied_added_and_filled() {
    let (width, height) = (37usize, 5usize);
    let (a, b) = (values(height * 40, 1), values(height * 50, 2));
    let grid = Grid::cover(width * height, 256);
    let (w, h) = (width as i64, height as i64);
    let got = outputs(|rig| {
        let (to, sum) = (rig.put(&vec![9.0f32; height * 41]), rig.put(&vec![9.0f32; height * 41]));
        let filled = rig.put(&vec![9.0f32; height * 41]);
        // SAFETY: each region has `height` rows of its stride.
        unsafe {
            strided_copy(&rig.on(), grid, rig.give(&a), to, 40, 41, w, h).unwrap();
            strided_add(
                &rig.on(),
                vectors::<f32>(width * height),
                to.into(),
                rig.give(&b),
                Const::NONE,
                sum,
                41,
                50,
                41,
                w,
                h,
            )
            .unwrap();
            strided_fill(&rig.on(), grid, filled, 2.5, 41, w, h).unwrap();
        }
        vec![rig.get(to, height * 41), rig.get(sum, height * 41), rig.get(filled, height * 41)]
    });
    for (row, column) in (0..height).flat_map(|row| (0..41).map(move |column| (row, column))) {
        let inside = column < width;
        let (at, outside) = (row * 41 + column, 9.0);
        let from = a[row * 40 + column.min(39)];
        assert_eq!(got[0][at], if inside { from } else { outside });
        assert_eq!(got[1][at], if inside { from + b[row * 50 + column] } else { outside });
        assert_eq!(got[2][at], if inside { 2.5 } else { outside });
    }
    each_type!(T, add = strided_add | strided_add_bf16 => {
        let got = outputs(|rig| {
            let sum = rig.put(&T::all_from(&a));
            // SAFETY: as above.
            unsafe {
                let (grid, b, none) = (vectors::<T>(width * height), rig.element(&b), Const::NONE);
                add(&rig.on(), grid, sum.into(), b, none, sum, 40, 50, 40, w, h).unwrap();
            }
            vec![rig.numbers(sum, height * 40)]
        });
        let sum = |i: usize| f64::from(a[i]) + if i % 40 < width { f64::from(b[i / 40 * 50 + i % 40]) } else { 0.0 };
        close("sum", &got[0], &(0..height * 40).map(sum).collect::<Vec<_>>(), T::TOLERANCE);
    });
}

#[test]
fn a_sum_of_gradients_is_zero_where_a_relu_was() {
    for n in SIZES {
        let (a, b, mut y) = (values(n, 1), values(n, 2), values(n, 3));
        y[0] = f32::NAN;
        let of = |i: usize| if y[i] > 0.0 { f64::from(a[i]) + f64::from(b[i]) } else { 0.0 };
        let want: Vec<f64> = (0..n).map(of).collect();
        each_type!(T, add = strided_add | strided_add_bf16 => {
            let got = outputs(|rig| {
                let (sum, width) = (rig.out::<T>(n), n as i64);
                let (a, b, y) = (rig.element(&a), rig.element(&b), rig.element(&y));
                // SAFETY: all have n elements.
                unsafe { add(&rig.on(), vectors::<T>(n), a, b, y, sum, width, width, width, width, 1).unwrap() };
                vec![rig.numbers(sum, n)]
            });
            close("sum", &got[0], &want, T::TOLERANCE);
        });
    }
}

#[test]
fn dropout_draws_the_same_words_as_the_host() {
    let (seed, layer, step) = (0x1234_5678_9abc_def0u64, 3u64, 77u32);
    let random = Random::new(seed, RandomStream::Dropout, u64::from(step), layer);
    let key = random.key();
    // A device with channels 2..7 of 9, from pixel 11 on; then devices with all channels. The part of a batch begins with
    // its third sample, and a sample has 13 pixels.
    let (row, image) = (2u32, 13usize);
    for (c, channels, first_channel, first_pixel) in [(5, 9, 2, 11), (8, 8, 0, 1), (3, 3, 0, 0)] {
        let n = c * 101;
        let x = values(n, 4);
        let (threshold, scale) = (1u32 << 30, 4.0f32 / 3.0);
        let want: Vec<f64> = (0..n)
            .map(|i| {
                let index = (row as usize * image + first_pixel + i / c) * channels + first_channel + i % c;
                let kept = random.word(index as u64) >= threshold;
                if kept { f64::from(x[i]) * f64::from(scale) } else { 0.0 }
            })
            .collect();
        each_type!(T, mask = dropout_mask | dropout_mask_bf16 => {
            let got = outputs(|rig| {
                let y = rig.out::<T>(n);
                let (x, step, row): (Const<T>, _, _) = (rig.element(&x), rig.give(&[step]), rig.give(&[row]));
                let (c, channels, first) = (c as i32, channels as i32, first_channel as i32);
                // SAFETY: x and y have n elements.
                unsafe {
                    mask(&rig.on(), vectors::<T>(n), x, y, step, row, n as i64, c, channels, first_pixel as i64,
                        image as i64, first, key[0], key[1], layer as u32, threshold, scale).unwrap();
                }
                vec![rig.numbers(y, n)]
            });
            close("y", &got[0], &want, T::TOLERANCE);
        });
    }
}
