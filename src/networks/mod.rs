//! Neural networks as score models, by candle: training, saving, loading. Feature `candle`.
