/* SPDX-License-Identifier: MIT */
/* How a camera was held: the orientation that EXIF has, and turning pixels by it.
 *
 * 1: as they lie; 2 to 4: mirrored, upside down, both; 5 to 8: with rows and columns exchanged. */
#ifndef CURFEWD_IMAGES_EXIF_H
#define CURFEWD_IMAGES_EXIF_H

#include "curfewd/images/codec.h"

/* The orientation that a JPEG's APP1 segment says, without its length; 0: it does not say. */
unsigned exif_orientation(const uint8_t *data, size_t size);

/* Whether width and height are exchanged. */
bool exif_is_turned(unsigned orientation);

/* Have the pixels lie as they are to be seen. Fails with CF_ENOMEM: then nothing has changed. */
CF_MUST enum cf_code exif_turn(struct pixels *pixels, struct cf_err *err);

#endif
