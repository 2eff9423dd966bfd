/* Three kinds of work that compilers treat differently, and one number that says whether the result is still right.

     orbits ROUNDS    prints one line: a checksum

   Planets attract each other (floating point, dependent divisions), a matrix is squared in tiles (memory and vector
   units), and words are counted by hash (integers and branches). TILE is a compile-time parameter and divides SIDE. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef TILE
#define TILE 16
#endif
#define SIDE 192
#define BODIES 6
#define SLOTS 4096
#if SIDE % TILE
#error "TILE must divide SIDE"
#endif

typedef struct { double x, y, z, vx, vy, vz, mass; } body_t;

static body_t bodies[BODIES];
static double a[SIDE][SIDE], c[SIDE][SIDE];
static uint32_t counts[SLOTS];

static uint32_t next(uint32_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static double unit(uint32_t *state) { return next(state) / 4294967296.0; }

static void begin(void) {
    uint32_t state = 2463534242u;
    for (int i = 0; i < BODIES; i++)
        bodies[i] = (body_t){unit(&state) * 10 - 5, unit(&state) * 10 - 5, unit(&state) * 10 - 5,
                             unit(&state) - 0.5, unit(&state) - 0.5, unit(&state) - 0.5, unit(&state) + 0.1};
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) a[i][j] = unit(&state) - 0.5;
}

static void attract(double dt) {
    for (int i = 0; i < BODIES; i++)
        for (int j = i + 1; j < BODIES; j++) {
            double dx = bodies[i].x - bodies[j].x, dy = bodies[i].y - bodies[j].y, dz = bodies[i].z - bodies[j].z;
            double square = dx * dx + dy * dy + dz * dz + 0.01, pull = dt / (square * sqrt(square));
            bodies[i].vx -= dx * bodies[j].mass * pull;
            bodies[i].vy -= dy * bodies[j].mass * pull;
            bodies[i].vz -= dz * bodies[j].mass * pull;
            bodies[j].vx += dx * bodies[i].mass * pull;
            bodies[j].vy += dy * bodies[i].mass * pull;
            bodies[j].vz += dz * bodies[i].mass * pull;
        }
    for (int i = 0; i < BODIES; i++) {
        bodies[i].x += dt * bodies[i].vx;
        bodies[i].y += dt * bodies[i].vy;
        bodies[i].z += dt * bodies[i].vz;
    }
}

static void square_matrix(void) {
    memset(c, 0, sizeof c);
    for (int ii = 0; ii < SIDE; ii += TILE)
        for (int kk = 0; kk < SIDE; kk += TILE)
            for (int i = ii; i < ii + TILE; i++)
                for (int k = kk; k < kk + TILE; k++)
                    for (int j = 0; j < SIDE; j++) c[i][j] += a[i][k] * a[k][j];
}

static void count_words(uint32_t seed, int words) {
    for (int i = 0; i < words; i++) {
        uint32_t hash = 2166136261u, length = 1 + next(&seed) % 12;
        for (uint32_t k = 0; k < length; k++) hash = (hash ^ (next(&seed) & 31)) * 16777619u;
        counts[hash % SLOTS]++;
    }
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 1;
    double sum = 0;
    begin();
    for (int round = 0; round < rounds; round++) {
        for (int step = 0; step < 4000; step++) attract(1e-5);
        square_matrix();
        count_words(1 + round, 20000);
        sum += c[round % SIDE][(7 * round) % SIDE] + counts[round % SLOTS];
    }
    for (int i = 0; i < BODIES; i++) sum += bodies[i].x * bodies[i].mass;
    printf("%.12g\n", sum);
    return 0;
}
