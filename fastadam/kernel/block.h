/* How many elements a block of 8-bit codes has, and how many bytes of its own stand before them: see codecs.h. */
#ifndef FASTADAM_BLOCK_H
#define FASTADAM_BLOCK_H

#define BLOCK 256
#define BLOCK_HEAD 2

#endif
