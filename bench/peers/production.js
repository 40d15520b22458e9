// Imported before everything else: packages look at it while they load.
process.env.NODE_ENV = 'production'
