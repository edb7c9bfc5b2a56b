/* Writes into the file that it is given when it began to run: nanoseconds since the epoch. */
#include <stdio.h>
#include <time.h>

int main(int count, char **arguments) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    FILE *file = count == 2 ? fopen(arguments[1], "w") : NULL;
    if (!file) return 1;
    fprintf(file, "%lld%09ld\n", (long long)now.tv_sec, now.tv_nsec);
    return fclose(file) == 0 ? 0 : 1;
}
