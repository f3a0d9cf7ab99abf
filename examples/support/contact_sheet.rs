//! Many small images on one sheet.

use super::picture::Picture;

/// Pixels on a side of an image.
const SIDE: usize = 8;
/// Pixels of the sheet on a side of an image's pixel.
const SCALE: usize = 8;
/// Between the images, and around them.
const BORDER: usize = 2;
const BORDER_GREY: u8 = 120;

/// Images of 8 x 8 pixels, row after row of the sheet; `None` leaves a place empty. Pixels run from -1, white, to 1,
/// black; what is outside is cut off.
pub fn contact_sheet(images: &[Option<&[f32]>], columns: usize) -> Picture {
    let pitch = SIDE * SCALE + BORDER;
    let rows = images.len().div_ceil(columns);
    let (width, height) = (columns * pitch + BORDER, rows * pitch + BORDER);
    let mut sheet = Picture { width, height, grey: vec![BORDER_GREY; width * height] };
    for (place, image) in images.iter().enumerate() {
        let Some(image) = image else { continue };
        let (left, top) = (BORDER + place % columns * pitch, BORDER + place / columns * pitch);
        for y in 0..SIDE * SCALE {
            for x in 0..SIDE * SCALE {
                let ink = image[y / SCALE * SIDE + x / SCALE];
                let start = (top + y) * sheet.width + left;
                sheet.grey[start + x] = (127.5 * (1.0 - ink.clamp(-1.0, 1.0))).round() as u8;
            }
        }
    }
    sheet
}
