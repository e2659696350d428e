/* statloop PATH COUNT BATCH: COUNT lines, each the mean nanoseconds of one stat(2) out of BATCH.
 * In C because a Python call costs as much as what is measured. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

int main(int argc, char **argv)
{
	struct timespec begin, end;
	struct stat status;

	if (argc != 4)
		return 2;
	for (int count = atoi(argv[2]), batch = atoi(argv[3]); count > 0; count--) {
		clock_gettime(CLOCK_MONOTONIC, &begin);
		for (int i = 0; i < batch; i++)
			if (stat(argv[1], &status))
				return 1;
		clock_gettime(CLOCK_MONOTONIC, &end);
		printf("%.1f\n", ((end.tv_sec - begin.tv_sec) * 1e9 + (end.tv_nsec - begin.tv_nsec)) / batch);
	}
	return 0;
}
