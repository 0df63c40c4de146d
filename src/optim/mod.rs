//! From gradients to updates: a chain of transforms, and the schedules of the learning rate. Knows no device and no
//! layer; works on flat regions in which each parameter's part is a [`Segment`].
