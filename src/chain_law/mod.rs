//! Exact laws of discretised chains: for Gaussian data after every step of any affine sampler, and on the line by
//! quadrature. Beside the building: it looks at samplers, and nothing there looks back.
