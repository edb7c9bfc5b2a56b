/* How many processes a second two threads can start and wait for, with nothing around: the machine's own limit. */
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static long each;

static void *spawn_and_wait(void *unused) {
    char *arguments[] = {"/bin/true", NULL};
    for (long i = 0; i < each; i++) {
        pid_t pid;
        int status;
        if (posix_spawn(&pid, arguments[0], NULL, NULL, arguments, environ) != 0) exit(1);
        if (waitpid(pid, &status, 0) != pid || status != 0) exit(1);
    }
    return unused;
}

int main(int count, char **arguments) {
    struct timespec start, end;
    pthread_t threads[2];
    if (count != 2) return 2;
    each = atol(arguments[1]) / 2;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, spawn_and_wait, NULL) != 0) return 1;
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%f\n", (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9);
    return 0;
}
