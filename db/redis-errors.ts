/**
 * Calls to Redis throw this. It holds no key and no value. It has a file of its own because the logger knows it, and a
 * server without Redis doesn't load the driver.
 */
export class RedisFailure extends Error {
  override readonly name = 'RedisFailure'
}
