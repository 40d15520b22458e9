// Imported first, because packages read it while they load.
process.env.NODE_ENV = 'production'
