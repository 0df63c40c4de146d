//! The emulated device through the driver interface: copies, streams, events, captures, and the misuse it rejects.

use peristyle::gpu::kernels::relu_forward;
use peristyle::gpu::{Driver, DriverKind, EmulatorSettings, Grid, Issue, Mut, Rows};

fn device() -> Driver {
    Driver::emulated(EmulatorSettings::default()).expect("the tests need a C++ compiler")
}

#[test]
fn new_memory_is_nan_and_copies_round_trip() -> peristyle::Result<()> {
    let device = device();
    let (stream, at) = (device.stream()?, device.allocate(64)?);
    let mut x = [0f32; 16];
    // SAFETY: all ranges are 64 bytes.
    unsafe {
        device.copy_out(x.as_mut_ptr().cast(), at, 64, stream)?;
        assert!(x.iter().all(|x| x.is_nan()));
        let y: Vec<f32> = (0..16).map(|i| i as f32).collect();
        device.copy_in(at, y.as_ptr().cast(), 64, stream)?;
        // The middle two columns of the first two rows of a 4 x 4 matrix become its last row.
        device.copy_rows(Rows { address: at + 48, pitch: 8 }, Rows { address: at + 4, pitch: 16 }, 8, 2, stream)?;
        device.copy_out(x.as_mut_ptr().cast(), at, 64, stream)?;
        assert_eq!(x[11..], [11.0, 1.0, 2.0, 5.0, 6.0]);
        device.fill(at, 0, 64, stream)?;
        device.copy_out(x.as_mut_ptr().cast(), at, 64, stream)?;
        assert_eq!(x, [0.0; 16]);
        device.free(at)
    }
}

#[test]
fn misuse_that_a_gpu_would_tolerate_is_an_error() -> peristyle::Result<()> {
    let device = device();
    let (stream, at) = (device.stream()?, device.allocate(64)?);
    let said = |result: peristyle::Result<()>| result.unwrap_err().to_string();
    let never = device.event()?;
    assert!(said(device.wait(stream, never)).contains("never recorded"));
    let mut x = [0u8; 65];
    // SAFETY: the device rejects accesses outside its allocations.
    unsafe {
        let text = said(device.copy_out(x.as_mut_ptr(), at, 65, stream));
        assert!(text.contains("cannot copy from 65 bytes") && text.contains("outside every allocation"), "{text}");
        let issue = Issue { driver: &device, stream };
        let text = said(relu_forward(&issue, Grid::cover(1, 1), Mut::at(at).into(), Mut::at(8), 1));
        assert!(text.contains("launch relu_forward (parameter 2)"), "{text}");
        device.free(at)?;
        assert!(said(device.free(at)).contains("freed twice"));
    }
    Ok(())
}

#[test]
fn a_captured_graph_does_nothing_until_it_is_launched() -> peristyle::Result<()> {
    let (first, second) = (device(), device());
    let (a, b) = (first.stream()?, second.stream()?);
    let (forked, joined) = (first.event()?, second.event()?);
    let (x, y) = (first.allocate(16)?, second.allocate(16)?);
    let values = |of: u64| {
        let mut values = [0f32; 4];
        // SAFETY: 16 bytes on both sides.
        unsafe { first.copy_out(values.as_mut_ptr().cast(), of, 16, a) }.map(|()| values)
    };
    // SAFETY: all ranges are 16 bytes.
    unsafe {
        first.copy_in(x, [-1f32, 2.0, -3.0, 4.0].as_ptr().cast(), 16, a)?;
        first.begin_capture(a)?;
        relu_forward(&Issue { driver: &first, stream: a }, Grid::cover(1, 1), Mut::at(x).into(), Mut::at(x), 4)?;
        first.record(forked, a)?;
        second.wait(b, forked)?;
        second.copy(y, x, 16, b)?;
        assert!(second.synchronize(b).is_err());
        second.record(joined, b)?;
        first.wait(a, joined)?;
        let graph = first.end_capture(a)?;
        assert_eq!(values(x)?, [-1.0, 2.0, -3.0, 4.0]);
        assert!(values(y)?[0].is_nan());
        first.launch_graph(graph, a)?;
        assert_eq!((values(x)?, values(y)?), ([0.0, 2.0, 0.0, 4.0], [0.0, 2.0, 0.0, 4.0]));

        first.begin_capture(a)?;
        first.record(forked, a)?;
        second.wait(b, forked)?;
        second.fill(y, 0, 16, b)?;
        let text = first.end_capture(a).unwrap_err().to_string();
        assert!(text.contains("joined"), "{text}");
        first.free(x)?;
        second.free(y)
    }
}

#[test]
fn a_missing_gpu_is_reported() {
    // On a machine with a GPU, there is nothing to check.
    if let Err(error) = Driver::count(DriverKind::Cuda) {
        let text = error.to_string();
        assert!(text.contains("NVIDIA driver") || text.contains("no GPU"), "{text}");
        assert_eq!(error.exit_code(), 2);
    }
}
