/* The number of elements in a block of 8-bit codes, and the number of bytes before them: see codecs.h. */
#ifndef FASTADAM_BLOCK_H
#define FASTADAM_BLOCK_H

#define BLOCK 256
#define BLOCK_HEAD 2

#endif
