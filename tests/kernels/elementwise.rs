use crate::rig::*;
use peristyle::device::kernels::*;

#[test]
fn relu_and_its_gradient_are_exact() {
    for n in [1, 3, 4, 1023, 2050] {
        let (x, dy) = (values(n, 1), values(n, 2));
        let y: Vec<f64> = x.iter().map(|&x| f64::from(x.max(0.0))).collect();
        let dx: Vec<f64> = x.iter().zip(&dy).map(|(&x, &dy)| if x > 0.0 { f64::from(dy) } else { 0.0 }).collect();
        let got = outputs(|rig| {
            let (a, b, gy) = (rig.out(n), rig.out(n), rig.give(&dy));
            let (p, q) = (rig.out(n), rig.out(n));
            // SAFETY: all have n elements.
            unsafe {
                relu_forward(&rig.on(), packs::<f32>(n), rig.give(&x), a, n as i64).unwrap();
                relu_backward(&rig.on(), packs::<f32>(n), a.into(), gy, b, n as i64).unwrap();
                let (x, dy) = (rig.give(&to_bf16(&x)), rig.give(&to_bf16(&dy)));
                relu_forward_bf16(&rig.on(), packs::<half::bf16>(n), x, p, n as i64).unwrap();
                relu_backward_bf16(&rig.on(), packs::<half::bf16>(n), p.into(), dy, q, n as i64).unwrap();
            }
            vec![rig.get(a, n), rig.get(b, n), from_bf16(&rig.get(p, n)), from_bf16(&rig.get(q, n))]
        });
        for (name, got, want) in
            [("y", &got[0], &y), ("dx", &got[1], &dx), ("y bf16", &got[2], &y), ("dx bf16", &got[3], &dx)]
        {
            close(name, got, want, 0.0);
        }
    }
}
